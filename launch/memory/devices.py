"""How many bytes a device leaves for the tensors of one process: known devices, this one, or bytes. Imports no torch.

The figures are what CUDA reports on Linux: torch's total_memory, the capacity in torch's out-of-memory messages, or, on
a Jetson, the memory that Linux sees. Where published ones differ (newer drivers, ECC) the smallest found stands here:
a plan has to fit everywhere. NCCL's buffers are no part of any figure: they come with several processes. Compute
capabilities, on which cuBLAS's workspace depends: developer.nvidia.com/cuda-gpus.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Literal

from bench.errors import UsageError
from bench.machine import environment, nvml

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
THOR = "JetPack 7: wiki.seeedstudio.com/control_rebot_arm_with_nemoclaw_on_nvidia_jetson_thor"


Capability = tuple[int, int]


@dataclass(frozen=True)
class Device:
    """What is known of a device's memory. `visible_bytes`: all of it that CUDA, or Linux on a Jetson, sees."""

    name: str
    title: str
    capability: Capability
    visible_bytes: int
    system_reserve_bytes: int
    process_reserve_bytes: int
    unified: bool
    source: str
    estimated: bool = False


def _jetson(name: str, title: str, capability: Capability, gib: float, source: str) -> Device:
    reserves = JETSON_SYSTEM_BYTES, JETSON_PROCESS_BYTES
    return Device(name, f"NVIDIA Jetson {title}", capability, int(gib * GIB), *reserves, True, source)


def _estimate(name: str, title: str, capability: Capability, gib: float, how: str) -> Device:
    return replace(_jetson(name, title, capability, gib, f"no published figure found; {how}"), estimated=True)


def _gpu(name: str, title: str, capability: Capability, gib: float, source: str) -> Device:
    return Device(name, f"NVIDIA {title}", capability, int(gib * GIB), 0, GPU_PROCESS_BYTES, False, source)


# Left out for want of a figure from Linux: Jetson T4000, RTX 4070, RTX 4080, MI300X.
_TABLE = (
    _estimate("orin-nano-4gb", "Orin Nano 4GB", (8, 7), 3.3, "4 GB less the 0.7 that an Orin Nano 8GB does not show"),
    _jetson("orin-nano-8gb", "Orin Nano 8GB", (8, 7), 7.3, "free -h, JetPack 5.1.2: dusty-nv/jetson-containers#342"),
    _estimate(
        "orin-nx-8gb", "Orin NX 8GB", (8, 7), 7.3, "that of the Orin Nano 8GB, the same chip with as much memory"
    ),
    _jetson("orin-nx-16gb", "Orin NX 16GB", (8, 7), 15.3, "JetPack 6: Andyyyy64/whichllm#165"),
    _jetson("agx-orin-32gb", "AGX Orin 32GB", (8, 7), 30588 / 1024, "torch: ultralytics/ultralytics#16933"),
    _jetson("agx-orin-64gb", "AGX Orin 64GB", (8, 7), 61.4, "CUDA, JetPack 6: ollama/ollama#3406"),
    _jetson("agx-thor-t5000", "AGX Thor T5000 128GB", (11, 0), 125771 / 1024, THOR),
    _gpu("a10", "A10 24GB", (8, 6), 21.99, "torch: zai-org/CogVLM#236"),
    _gpu("a30", "A30 24GB", (8, 0), 23.53, "torch: google/RB-Modulation#5"),
    _gpu("a100-40gb", "A100 40GB", (8, 0), 39.50, "torch: TianheWu/CoSeR#10"),
    _gpu("a100-80gb", "A100 80GB", (8, 0), 81051 / 1024, "torch: ultralytics/ultralytics#22877"),
    _gpu("h100-80gb", "H100 80GB", (9, 0), 79.11, "torch: vllm-project/vllm#27508"),
    _gpu("h200", "H200 141GB", (9, 0), 139.81, "torch: sungwon-chae/arxiv_confi, etu_logging.md"),
    _gpu("l4", "L4 24GB", (8, 9), 22.03, "torch: ArcInstitute/evo2#190"),
    _gpu("l40", "L40 48GB", (8, 9), 44.40, "torch: QwenLM/Qwen3-VL#2097"),
    _gpu("l40s", "L40S 48GB", (8, 9), 44.42, "torch: stepfun-ai/Step-Video-T2V#8"),
    _gpu("t4", "T4 16GB", (7, 5), 14.56, "torch: Zheng-Chong/CatVTON#133"),
    _gpu("v100-16gb", "V100 16GB", (7, 0), 15.78, "torch: kchengiva/Shift-GCN#34"),
    _gpu("v100-32gb", "V100 32GB", (7, 0), 31.74, "torch: liucongg/ChatGLM-Finetuning#73"),
    _gpu("rtx-3060-12gb", "GeForce RTX 3060 12GB", (8, 6), 11.75, "torch: PromtEngineer/localGPT-Vision#14"),
    _gpu("rtx-3070", "GeForce RTX 3070 8GB", (8, 6), 7.76, "torch: sshan-zhao/GASDA#19"),
    _gpu("rtx-3080-10gb", "GeForce RTX 3080 10GB", (8, 6), 9.78, "torch: zai-org/CogVideo#34"),
    _gpu("rtx-3090", "GeForce RTX 3090 24GB", (8, 6), 23.70, "torch: GaoLii/DSP#10"),
    _gpu("rtx-4060", "GeForce RTX 4060 8GB", (8, 9), 7.63, "torch: AIRI-Institute/HairFastGAN#8"),
    _gpu("rtx-4090", "GeForce RTX 4090 24GB", (8, 9), 23.52, "torch: pytorch/torchchat#1341"),
    _gpu("rtx-5090", "GeForce RTX 5090 32GB", (12, 0), 32120 / 1024, "torch: ultralytics/ultralytics#19833"),
    _gpu("rtx-a2000-12gb", "RTX A2000 12GB", (8, 6), 11.53, "torch: vllm-project/vllm#12030"),
    _gpu("rtx-a4000", "RTX A4000 16GB", (8, 6), 15.61, "torch: DengKaiCQ/VGGT-Long#6"),
    _gpu("rtx-a6000", "RTX A6000 48GB, ECC off", (8, 6), 48670 / 1024, "torch: ultralytics/ultralytics#19084"),
    _gpu("rtx-6000-ada", "RTX 6000 Ada 48GB, ECC on", (8, 9), 44.43, "torch: DINGYANB/MTVCrafter#21"),
)
DEVICES = {device.name: device for device in _TABLE}


@dataclass(frozen=True)
class Budget:
    """What the tensors of one process may take, and how that came about.

    `visible_bytes`: what is there to start from, on this device what is free now; None where the user gave the bytes.
    `capability`: the GPU's compute capability; None: not known.
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
        """The sum, in GiB, on one line, and on a second one what it leaves out, if anything."""
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
    """Bytes that an amount such as 600MiB (2^20), 7.4GiB, 1.5GB (10^9) or 123456 stands for. UsageError: none, or 0."""
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
    """What `text` leaves for the tensors of one process: a device's name, bytes, or auto (what is free here, now).

    From bytes nothing is held back but `reserve`, which otherwise replaces all that would be. `gpus`: GPUs that a trial
    can use here; auto asks the first. `cpu`: the limit is for a run on the CPU, whose memory, with auto, `processes`
    share. `root`: where /proc is looked for.
    UsageError: no such device or amount, nothing left, or this device does not say what is free.
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
    """The bytes. UsageError: too few for any model, as when 4090 means a GPU."""
    amount = parse_bytes(text)
    if amount < MIB:
        raise UsageError(f"{text!r} is {amount} bytes, too few for a model; give a unit as in {EXAMPLES}, or a device")
    return amount


def _known(text: str, backend: Literal["cuda", "cpu"]) -> Budget:
    """The named device's budget before anything is subtracted. UsageError: no such device."""
    name = re.sub(r"[\s_]+", "-", text.strip().lower())
    if name not in DEVICES:
        near = difflib.get_close_matches(name, DEVICES, n=3, cutoff=0.5)
        choose = f"the nearest are: {', '.join(near)}" if near else f"choose from: {', '.join(DEVICES)}"
        raise UsageError(f"no device {text.strip()!r}; {choose}; or give bytes such as 7.4GiB, or auto")
    device = DEVICES[name]
    seen, source = device.visible_bytes, f"visible ({device.source})"
    whole = Budget(seen, seen, device.system_reserve_bytes, device.process_reserve_bytes, name, source, backend)
    holds, note = (ON_JETSON, WITH_LOADERS) if device.unified else (ON_GPU, "" if backend == "cpu" else WITH_NCCL)
    whole = replace(whole, process_holds=f"process ({holds})", estimated=device.estimated, note=note)
    return replace(whole, capability=device.capability)


def _this_cpu(root: Path, processes: int) -> Budget:
    """This machine's memory, now, shared by the processes. A container's own limit is not seen."""
    free = _available_bytes(root) // processes
    share = f", a process's share of {processes}" if processes > 1 else ""
    source, holds = f"free now (MemAvailable{share})", f"process ({ON_CPU})"
    return Budget(free, free, 0, CPU_PROCESS_BYTES, "this machine", source, "cpu", holds)


def _this_gpu(root: Path) -> Budget:
    """The first visible GPU's memory, now.

    A Jetson's is that of Linux: NVML does not say, and CUDA counts the page cache as used (ollama/ollama#12283).
    """
    if environment.is_jetson(root):
        free, source = _available_bytes(root), "free now (MemAvailable)"
        holds = f"process ({ON_JETSON})"
        return Budget(free, free, 0, JETSON_PROCESS_BYTES, "this device", source, "cuda", holds, note=WITH_LOADERS)
    first = _first_gpu()
    said = nvml.free_bytes(first)
    if said is None:
        raise UsageError(f"NVML does not say what is free on GPU {first}; give bytes such as 7.4GiB, or a device")
    source, holds = f"free now on GPU {first} (NVML)", f"process ({ON_GPU})"
    whole = Budget(said, said, 0, GPU_PROCESS_BYTES, "this device", source, "cuda", holds, note=WITH_NCCL)
    return replace(whole, capability=nvml.capability(first))


def this_capability(gpus: int) -> Capability | None:
    """The compute capability of the first of these GPUs; None: there is none, or NVML does not say."""
    return nvml.capability(_first_gpu()) if gpus else None


def _first_gpu() -> str:
    """The first visible GPU's number or UUID."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()


def _available_bytes(root: Path) -> int:
    """MemAvailable of /proc/meminfo. UsageError: it is not there."""
    path = root / "proc/meminfo"
    try:
        found = re.search(r"^MemAvailable:\s*([0-9]+) kB$", path.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if not found:
        raise UsageError(f"no MemAvailable in {path}; give bytes such as 7.4GiB, or a device")
    return int(found[1]) * KIB


def _less_reserve(whole: Budget, given: int | None) -> Budget:
    """The budget with its reserves taken off, or the given one instead. UsageError: nothing is left."""
    if given is not None:
        whole = replace(whole, system_reserve_bytes=0, process_reserve_bytes=given)
        whole = replace(whole, process_holds="reserve (--reserve)", note="")
    kept = whole.system_reserve_bytes + whole.process_reserve_bytes
    if kept >= whole.bytes:
        raise UsageError(
            f"{whole.device} has {_gib(whole.bytes)} {whole.source}, no more than the {_gib(kept)} held back; "
            f"give a --reserve below that, or another device"
        )
    return replace(whole, bytes=whole.bytes - kept)
