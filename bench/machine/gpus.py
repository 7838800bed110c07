"""The GPUs of this machine that a trial can use, and how torch was built for them: read without importing torch."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import mmap
import os
import re
from collections.abc import Sequence
from pathlib import Path

from bench.machine import environment, nvml


def visible(root: Path = Path("/")) -> list[str]:
    """The names of the devices here that CUDA_VISIBLE_DEVICES (on AMD: see amd()) lets torch see."""
    if environment.flag("ACCELERATE_USE_CPU"):
        return []
    if "hip" in built_for():
        return amd(root)
    return let_through(present(root), os.environ.get("CUDA_VISIBLE_DEVICES"))


def present(root: Path = Path("/")) -> int:
    """NVIDIA GPUs in this machine. Before JetPack 6, NVML does not see a Jetson's."""
    return nvml.device_count() or int(environment.is_jetson(root))


def amd(root: Path = Path("/")) -> list[str]:
    """The same for AMD's GPUs and HIP_VISIBLE_DEVICES. The kernel lists all GPUs that ROCm can see.

    An integrated GPU counts, as it does for ROCm. HIP chooses among the GPUs that ROCR_VISIBLE_DEVICES leaves, and
    reads CUDA's variable if its own is empty (rocclr's rocdevice.cpp).
    """
    count = 0
    for path in (root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties"):
        with contextlib.suppress(OSError):  # the GPU of another container
            # A CPU is a node too, with simd_count 0.
            count += (
                re.search(r"^simd_count [1-9]", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
                is not None
            )
    count = len(let_through(count, os.environ.get("ROCR_VISIBLE_DEVICES") or None))
    return let_through(count, os.environ.get("HIP_VISIBLE_DEVICES") or os.environ.get("CUDA_VISIBLE_DEVICES"))


def let_through(count: int, visible: str | None) -> list[str]:
    """The names in such a variable that stand for one of `count` devices; without a variable, all numbers."""
    if visible is None:
        return [str(number) for number in range(count)]
    names = [name.strip() for name in visible.split(",")]
    # CUDA ignores the first name that it does not know, and all after it. A UUID stands for one device.
    valid = itertools.takewhile(lambda n: n.startswith(("GPU-", "MIG-")) or (n.isdigit() and int(n) < count), names)
    return list(valid)[:count]


def only(names: Sequence[str]) -> dict[str, str]:
    """The environment variable that makes these devices, and no others, visible."""
    variable = "HIP_VISIBLE_DEVICES" if "hip" in built_for() else "CUDA_VISIBLE_DEVICES"
    return {variable: ",".join(names)}


def why_none(root: Path = Path("/")) -> str | None:
    """Why a trial that starts now finds no GPU; None: it should find one."""
    if environment.flag("ACCELERATE_USE_CPU"):
        return "ACCELERATE_USE_CPU is set"
    built = built_for()
    if not built.keys() & {"cuda", "hip"}:
        return f"torch {environment.version('torch')} is built without CUDA"
    if visible(root):
        return None
    if "hip" in built:
        return "the kernel shows no AMD GPU, or a variable hides it"
    return "CUDA_VISIBLE_DEVICES hides every GPU" if present(root) else nvml.trouble() or "NVML sees none"


@functools.cache
def built_for() -> dict[str, str]:
    """{"cuda", "hip" (AMD) or "xpu" (Intel): its version}; empty for a build for the CPU only.

    Not from torch's own version, which need not name it in a vendor's build.
    """
    folder = _folder()
    text = (folder / "version.py").read_text(encoding="utf-8", errors="replace") if folder else ""
    return dict(re.findall(r"^(cuda|hip|xpu)\b[^'\n]*'(.+)'$", text, re.MULTILINE))


@functools.cache
def has_distributed() -> bool:
    """Whether torch can form process groups. Some builds for Jetsons cannot (dusty-nv/jetson-containers#315).

    torch itself looks for the function _c10d_init; here its name is searched in the library's file.
    """
    with (
        contextlib.suppress(OSError, ValueError),
        open(f"{_folder()}/lib/libtorch_python.so", "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library,
    ):
        return library.find(b"_c10d_init") >= 0
    return True  # no such file: importing torch will tell


def _folder() -> Path | None:
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None
