"""The machine, the versions and the commit that a number was measured with. Imports no torch."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import socket
import sys
from pathlib import Path
from typing import Any

from bench.machine import nvml, repository
from bench.variables import COMMAND

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "accelerate", "numpy", "pandas", "nvidia-ml-py", "scikit-learn")
# Prefixes of environment variables that change what runs.
PREFIXES: tuple[str, ...] = ("ACCELERATE_", "NCCL_", "GLOO_", "TORCH_", "TORCHDYNAMO_", "TORCHINDUCTOR_", "PYTORCH_")
PREFIXES += ("ATEN_", "NVIDIA_", "CUDA_", "CUBLAS_", "CUDNN_", "OMP_", "MKL_", "KMP_", "ONEDNN_", "DNNL_")
PREFIXES += ("HIP_", "ROCR_", "HSA_", "MIOPEN_", "GLIBC_", "MALLOC_", "LD_PRELOAD")
# Never recorded: environment.json is passed on to others.
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
# Never recorded: they differ between launches in the same environment.
PER_LAUNCH = {"TORCHELASTIC_RUN_ID", "TORCH_NCCL_ASYNC_ERROR_HANDLING"}


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """The CPU's name; on ARM boards, for which the kernel gives none, the board's name."""
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return platform.processor() or None
    names = [value.strip() for key, _, value in lines if key.strip() in ("model name", "Model", "Hardware")]
    return names[0] if names else board() or platform.processor() or None


def board(model: Path = Path("/proc/device-tree/model")) -> str | None:
    """The board's name, if there is a device tree, as on a Jetson."""
    try:
        return model.read_text(encoding="utf-8", errors="replace").rstrip("\0\n ") or None
    except OSError:
        return None


def is_jetson(root: Path = Path("/")) -> bool:
    """Whether this machine is a Jetson, whose GPU NVML may not see.

    The chip decides, since boards of other makers need not be called Jetson (rbonghi/jetson_stats#514). In a container,
    which hides the device tree, the chip's family decides.
    """
    texts = []
    for path in ("proc/device-tree/compatible", "sys/devices/soc0/family"):
        with contextlib.suppress(OSError):
            texts.append((root / path).read_text(errors="replace", encoding="utf-8").lower())
    return any("nvidia,tegra" in text or text.startswith("tegra") for text in texts)


def cpu_count() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))  # fewer than os.cpu_count() in a container, or under Slurm


@functools.cache
def commit() -> tuple[str | None, bool | None]:
    """(this checkout's commit, whether there are no uncommitted changes); (None, None) where git knows none."""
    return repository.commit(CHECKOUT)


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """The columns of trials.csv about machine and versions, as far as they need no torch."""
    sha, clean = commit()
    return {
        "host": socket.gethostname(),
        "cpu_model": cpu_model(),
        "cpu_count": cpu_count(),
        "driver": nvml.driver_version(),
        "commit": sha and sha[:12] + ("" if clean else "-dirty"),
        **{name: version(name) for name in ("torch", "torchvision", "accelerate")},
    }


def describe(more: dict[str, Any]) -> dict[str, Any]:
    """This process's entry in environment.json. `more`: what needs torch."""
    sha, clean = commit()
    here = machine()  # its column commit is shortened; the entry has the whole one
    return {
        "command": os.environ.get(COMMAND) or " ".join(sys.orig_argv),
        "commit": sha,
        "commit_is_clean": clean,
        **{name: here[name] for name in ("host", "cpu_model", "cpu_count", "driver")},
        "system": platform.platform(),
        "board": board(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(PREFIXES) and name not in PER_LAUNCH and not SECRET.search(name)
        },
        **more,
    }


def key(environment: dict[str, Any]) -> str:
    """Twelve hex digits; equal environments have equal keys."""
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:12]


def flag(name: str) -> bool:
    """Whether an environment variable is set to yes, by Accelerate's rules."""
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "y", "t", "on")
