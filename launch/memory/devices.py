"""How many bytes does a device leave for the tensors of one process? Imports no torch.

The device is a known one (devices.csv), this one, or a number of bytes. devices.csv has what CUDA reports on Linux:
torch's total_memory, the capacity in torch's out-of-memory messages, or, on a Jetson, the memory that Linux sees. Where
published figures differ (newer drivers, ECC), it has the smallest: a plan has to fit everywhere. NCCL's buffers, which
only several processes have, are in no figure. The workspace of cuBLAS depends on the compute capability; those are from
developer.nvidia.com/cuda-gpus.
"""

from __future__ import annotations

import csv
import functools
import os
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Literal

from bench.errors import UsageError
from bench.machine import cgroups, environment, nvml
from models.nearest import nearest

KIB, MIB, GIB = 2**10, 2**20, 2**30
UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
UNITS |= {"kib": KIB, "mib": MIB, "gib": GIB, "tib": 2**40}
AMOUNT = re.compile(r"([0-9]{1,18}|[0-9]{0,18}\.[0-9]{1,18})\s*([kmgt]?i?b)", re.IGNORECASE)
EXAMPLES = "7.4GiB, 600MiB or 1.5GB"

# 544 MiB are in use on a headless Orin Nano (`free -h` in dusty-nv/jetson-containers#342).
JETSON_SYSTEM_BYTES = int(0.6 * GIB)
# 1.0 to 1.3 GiB by rule of thumb: no published measurement found.
JETSON_PROCESS_BYTES = int(1.3 * GIB)
# In the messages cited below, what a process uses less what PyTorch has reserved is 0.13 (T4) to 0.51 GiB (H200), in
# Wan-Video/Wan2.1#465 (RTX 5090) 0.58. A context alone: 0.3 GB in pytorch/pytorch#107667, 0.6 in LMCache/LMCache#4019.
GPU_PROCESS_BYTES = int(0.6 * GIB)
# Measured: 0.69 GiB resident once bench.worker is imported and a convolution was run (torch 2.14.1, x86).
CPU_PROCESS_BYTES = int(0.7 * GIB)

ON_JETSON, ON_GPU, ON_CPU = "CUDA context, Python, torch", "CUDA context, libraries", "Python, torch"
# NCCL: 544 MB between two A100s, 688 MB between more (NVIDIA/nccl#964); about 1.6 GB in NVIDIA/nccl#864.
WITH_NCCL = "Not counted: with several processes, NCCL takes about 0.5 to 1.6 GB more on each GPU."
WITH_LOADERS = "The process's share is a rule of thumb. Not counted: loader workers, and a desktop (about 0.9 GiB)."

TABLE = Path(__file__).with_name("devices.csv")

Capability = tuple[int, int]


@dataclass(frozen=True)
class Device:
    """A device's memory. `visible_bytes`: what CUDA, or Linux on a Jetson, sees of it. `unified`: shared with the CPU.

    `estimated`: no figure was published; `source` says how it was estimated.
    """

    name: str
    title: str
    capability: Capability
    visible_bytes: int
    system_reserve_bytes: int
    process_reserve_bytes: int
    unified: bool
    source: str
    estimated: bool = False


@functools.cache
def known_devices() -> dict[str, Device]:
    """Name -> device, from devices.csv. Jetson T4000, RTX 4070, RTX 4080, MI300X are left out: no figure on Linux."""
    with open(TABLE, newline="", encoding="utf-8") as file:
        return {row["name"]: _device(row) for row in csv.DictReader(file)}


def _device(row: dict[str, str]) -> Device:
    jetson = row["kind"] == "jetson"
    major, minor = map(int, row["compute_capability"].split("."))
    return Device(
        name=row["name"],
        title=row["title"],
        capability=(major, minor),
        visible_bytes=parse_bytes(row["visible"]),
        system_reserve_bytes=JETSON_SYSTEM_BYTES if jetson else 0,
        process_reserve_bytes=JETSON_PROCESS_BYTES if jetson else GPU_PROCESS_BYTES,
        unified=jetson,
        source=row["source"],
        estimated=row["estimated"] == "yes",
    )


@dataclass(frozen=True)
class Budget:
    """What the tensors of one process may take: visible_bytes less both reserves.

    `visible_bytes`: of a known device, all that it shows; of this device, what is free now; None: the user gave bytes.
    `process_holds`: what is in the process's reserve, in words. `capability`: the GPU's; None: not known.
    """

    bytes: int
    visible_bytes: int | None
    system_reserve_bytes: int
    process_reserve_bytes: int
    device: str
    source: str
    backend: Literal["cuda", "cpu"]
    process_holds: str = ""
    estimated: bool = False
    note: str = ""
    capability: Capability | None = None

    def explain(self) -> str:
        """The calculation in GiB on one line; on a second one, what it leaves out, if anything."""
        start = self.bytes + self.system_reserve_bytes + self.process_reserve_bytes
        term = f"{'about ' if self.estimated else ''}{_gib(start)} {self.source}"
        if self.system_reserve_bytes:
            term += f" - {_gib(self.system_reserve_bytes)} system (headless)"
        if self.process_reserve_bytes:
            term += f" - {_gib(self.process_reserve_bytes)} {self.process_holds}"
        if start != self.bytes:
            term += f" = {_gib(self.bytes)}"
        return f"{self.device}: {term} for tensors; change with --reserve" + (f"\n{self.note}" if self.note else "")


def _gib(amount: int) -> str:
    return f"{amount / GIB:.2f} GiB"


def parse_bytes(text: str) -> int:
    """The bytes of an amount such as 600MiB (2^20), 1.5GB (10^9) or 123456. Raises UsageError if it is none, or 0."""
    spelled = text.strip()
    match = AMOUNT.fullmatch(spelled if not spelled.isdecimal() else f"{spelled}b")
    amount = int(Decimal(match[1]) * UNITS[match[2].lower()]) if match and match[2].lower() in UNITS else 0
    if amount < 1:
        raise UsageError(f"{text!r} is no amount of memory; give one above 0 such as {EXAMPLES}")
    return amount


def budget(
    text: str,
    reserve: str | None = None,
    gpus: int = 0,
    cpu: bool = False,
    processes: int = 1,
    root: Path = Path("/"),
) -> Budget:
    """The budget of a limit: a device's name, bytes, or auto (what is free here, now).

    `reserve`: bytes to subtract, in place of the device's own reserves; from bytes nothing else is subtracted. `gpus`:
    GPUs that a trial can use here; auto asks the first. `cpu`: the limit is for a run on the CPU; with auto,
    `processes` share its memory. `root`: where /proc and /sys are.

    Raises UsageError if there is no such device or amount, nothing is left, or what is free cannot be read.
    """
    backend: Literal["cuda", "cpu"] = "cpu" if cpu else "cuda"
    if text.strip().lower() == "auto":
        whole = _this_cpu(root, processes) if cpu or gpus < 1 else _this_gpu(root)
    elif text.strip()[:1] in tuple("0123456789.+-"):
        amount = _plausible(text)
        whole = Budget(amount, None, 0, 0, text.strip(), "given", backend, capability=this_capability(gpus))
    else:
        whole = _known(text, backend)
    return _less_reserve(whole, None if reserve is None else 0 if reserve.strip() == "0" else parse_bytes(reserve))


def _plausible(text: str) -> int:
    """The bytes. Raises UsageError if they are too few for any model, as when 4090 means a GPU."""
    amount = parse_bytes(text)
    if amount < MIB:
        raise UsageError(f"{text!r} is {amount} bytes, too few for a model; give a unit as in {EXAMPLES}, or a device")
    return amount


def _known(text: str, backend: Literal["cuda", "cpu"]) -> Budget:
    """The named device's budget, before anything is subtracted. Raises UsageError if there is no such device."""
    name = re.sub(r"[\s_]+", "-", text.strip().lower())
    devices = known_devices()
    if name not in devices:
        near = nearest(name, devices, 3, 0.5)
        choose = f"the nearest are: {', '.join(near)}" if near else f"choose from: {', '.join(devices)}"
        raise UsageError(f"no device {text.strip()!r}; {choose}; or give bytes such as 7.4GiB, or auto")
    device = devices[name]
    holds, note = (ON_JETSON, WITH_LOADERS) if device.unified else (ON_GPU, "" if backend == "cpu" else WITH_NCCL)
    return Budget(
        bytes=device.visible_bytes,
        visible_bytes=device.visible_bytes,
        system_reserve_bytes=device.system_reserve_bytes,
        process_reserve_bytes=device.process_reserve_bytes,
        device=name,
        source=f"visible ({device.source})",
        backend=backend,
        process_holds=f"process ({holds})",
        estimated=device.estimated,
        note=note,
        capability=device.capability,
    )


def _this_cpu(root: Path, processes: int) -> Budget:
    """The free memory of this machine, or of its container, shared by the processes."""
    here = _free_memory(root)
    free = here.free_bytes // processes
    share = f", a process's share of {processes}" if processes > 1 else ""
    source, holds = f"free now ({here.explain()}{share})", f"process ({ON_CPU})"
    return Budget(free, free, 0, CPU_PROCESS_BYTES, "this machine", source, "cpu", holds)


def _this_gpu(root: Path) -> Budget:
    """The first visible GPU's free memory.

    On a Jetson that of Linux: NVML does not report it, and CUDA counts the page cache as used (ollama/ollama#12283).
    """
    if environment.is_jetson(root):
        here = _free_memory(root)
        free, source = here.free_bytes, f"free now ({here.explain()})"
        holds = f"process ({ON_JETSON})"
        return Budget(free, free, 0, JETSON_PROCESS_BYTES, "this device", source, "cuda", holds, note=WITH_LOADERS)
    first = _first_gpu()
    if (of_gpu := nvml.free_bytes(first)) is None:
        raise UsageError(f"NVML does not report what is free on GPU {first}; give bytes such as 7.4GiB, or a device")
    source, holds = f"free now on GPU {first} (NVML)", f"process ({ON_GPU})"
    capability = nvml.capability(first)
    return Budget(
        of_gpu, of_gpu, 0, GPU_PROCESS_BYTES, "this device", source, "cuda", holds, False, WITH_NCCL, capability
    )


def this_capability(gpus: int) -> Capability | None:
    """The compute capability of the first of these GPUs; None: there is none, or NVML does not report it."""
    return nvml.capability(_first_gpu()) if gpus else None


def _first_gpu() -> str:
    """The first visible GPU's number or UUID."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()


def _free_memory(root: Path) -> cgroups.MemoryLimit:
    """What is free here. Raises UsageError if the kernel does not say."""
    if (free := cgroups.free_memory(root)) is None:
        raise UsageError(f"no MemAvailable in {root / 'proc/meminfo'}; give bytes such as 7.4GiB, or a device")
    return free


def _less_reserve(whole: Budget, given: int | None) -> Budget:
    """The budget less its reserves, or less the given one in their place. Raises UsageError if nothing is left."""
    if given is not None:
        whole = replace(whole, system_reserve_bytes=0, process_reserve_bytes=given)
        whole = replace(whole, process_holds="reserve (--reserve)", note="")
    reserves = whole.system_reserve_bytes + whole.process_reserve_bytes
    if reserves >= whole.bytes:
        raise UsageError(
            f"{whole.device} has {_gib(whole.bytes)} {whole.source}, no more than the reserve of {_gib(reserves)}; "
            f"give a --reserve below that, or another device"
        )
    return replace(whole, bytes=whole.bytes - reserves)
