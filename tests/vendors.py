"""Torches of other builds and GPUs of another maker, as their files show them."""

from __future__ import annotations

from pathlib import Path

CUDA = "cuda: Optional[str] = '12.8'"
HIP, XPU = "hip: Optional[str] = '6.4.43482-0f2d60242'", "xpu: Optional[str] = '20250302'"


def plant_torch(folder: Path, built_for: str = "", distributed: bool = True) -> dict[str, str | None]:
    """Variables with which a command finds a torch in this folder that was built so, and breaks if it imports it."""
    torch = folder / "torch"
    (torch / "lib").mkdir(parents=True)
    (torch / "__init__.py").write_text("raise SystemExit('torch was imported')\n")
    built = {
        "cuda": "cuda: Optional[str] = None",
        "hip": "hip: Optional[str] = None",
        "xpu": "xpu: Optional[str] = None",
    }
    built |= {built_for.partition(":")[0]: built_for}
    (torch / "version.py").write_text("__version__ = '2.9.1'\ndebug = False\n" + "\n".join(built.values()) + "\n")
    methods = b"\0_c10d_init\0_rpc_init\0" if distributed else b"\0_jit_init\0"
    (torch / "lib" / "libtorch_python.so").write_bytes(b"\x7fELF" + methods)
    return {"PYTHONPATH": str(folder), "ACCELERATE_USE_CPU": None, "CUDA_VISIBLE_DEVICES": None}


def plant_amd(root: Path, gpus: int) -> Path:
    """A machine with a CPU and so many AMD GPUs, and one more that this container may not use, as the kernel tells."""
    nodes = root / "sys/class/kfd/kfd/topology/nodes"
    for number in range(gpus + 2):
        (nodes / str(number)).mkdir(parents=True)
        simd, cores = (0, 64) if number == 0 else (1216, 0)
        if number <= gpus:
            text = f"cpu_cores_count {cores}\nsimd_count {simd}\nmem_banks_count 1\nsimd_per_cu 4\n"
            (nodes / str(number) / "properties").write_text(text)
    return root
