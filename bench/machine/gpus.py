"""The GPUs of this machine that a trial can use, as far as can be told without torch. Imports no torch."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from bench.machine import environment, nvml
from bench.machine.torch_build import built_for


def visible(root: Path = Path("/")) -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES lets devices of this machine through, or would. AMD's: see amd()."""
    if environment.flag("ACCELERATE_USE_CPU"):
        return []
    if "hip" in built_for():
        return amd(root)
    return let_through(present(root), os.environ.get("CUDA_VISIBLE_DEVICES"))


def present(root: Path = Path("/")) -> int:
    """NVIDIA GPUs in this machine. A Jetson's is not seen by NVML before JetPack 6."""
    return nvml.device_count() or int(environment.is_jetson(root))


def amd(root: Path = Path("/")) -> list[str]:
    """The same of AMD's GPUs, and HIP_VISIBLE_DEVICES, of which the kernel tells all that ROCm can see.

    An integrated one is among them, and counts, as it does for ROCm. Source: rocclr's rocdevice.cpp: HIP chooses among
    what ROCR_VISIBLE_DEVICES left, and by CUDA's variable where its own is empty.
    """
    found = 0
    for path in (root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties"):
        with contextlib.suppress(OSError):  # another container's
            found += re.search(r"^simd_count [1-9]", path.read_text(), re.MULTILINE) is not None
    found = len(let_through(found, os.environ.get("ROCR_VISIBLE_DEVICES") or None))
    return let_through(found, os.environ.get("HIP_VISIBLE_DEVICES") or os.environ.get("CUDA_VISIBLE_DEVICES"))


def let_through(found: int, visible: str | None) -> list[str]:
    """The names in such a variable that stand for one of so many devices; all where there is no variable."""
    if visible is None:
        return [str(number) for number in range(found)]
    names = [name.strip() for name in visible.split(",")]
    # CUDA stops at the first name that it does not know; an UUID stands for one device.
    known = itertools.takewhile(lambda n: n.startswith(("GPU-", "MIG-")) or (n.isdigit() and int(n) < found), names)
    return list(known)[:found]


def only(names: Sequence[str]) -> dict[str, str]:
    """The environment variable that lets these devices through and no others."""
    variable = "HIP_VISIBLE_DEVICES" if "hip" in built_for() else "CUDA_VISIBLE_DEVICES"
    return {variable: ",".join(names)}


def why_none(root: Path = Path("/")) -> str | None:
    """Why a trial that is started now finds no GPU, or None where it should find one."""
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
