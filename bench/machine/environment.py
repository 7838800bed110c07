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
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.machine import cgroups, nvml, repository
from bench.machine.cgroups import cpu_count
from bench.variables import COMMAND

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "pandas", "nvidia-ml-py", "scikit-learn")
# Families of variables that change how fast one process computes or what memory it takes, by their libraries'
# documentation. A name that ends in _ is a prefix.
SPEED: tuple[str, ...] = ("ATEN_", "PYTORCH_", "TORCH_", "TORCHDYNAMO_", "TORCHINDUCTOR_", "TRITON_")  # torch
SPEED += ("THP_MEM_ALLOC_ENABLE", "LRU_CACHE_CAPACITY", "FBGEMM_")  # torch: huge pages, oneDNN's primitives, kernels
SPEED += ("ONEDNN_", "DNNL_", "MKL_", "OPENBLAS_", "OMP_", "GOMP_", "KMP_")  # kernels of the CPU, and their threads
SPEED += ("CUDA_", "CUBLAS_", "CUBLASLT_", "CUDNN_", "NVIDIA_TF32_OVERRIDE")
SPEED += ("HIP_", "HSA_", "ROCR_", "ROCBLAS_", "HIPBLASLT_", "MIOPEN_", "GPU_MAX_HW_QUEUES")  # AMD
SPEED += ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_", "TCMALLOC_", "MIMALLOC_")  # malloc: glibc, jemalloc, others
SPEED += ("PYTHONMALLOC", "PYTHONOPTIMIZE", "PYTHONDEVMODE", "PYTHONTRACEMALLOC", "PYTHONPERFSUPPORT")
SPEED += ("PYTHON_JIT", "PYTHON_GIL")
# The same of communication, which one process has no use for.
GROUP_SPEED = (
    "NCCL_",
    "RCCL_",
    "GLOO_",
    "OFI_NCCL_",
    "UCX_",
    "FI_",
    "TORCH_NCCL_",
    "TORCH_GLOO_",
    "TORCH_DISTRIBUTED_",
)
# Of these families, what changes no speed that is measured: versions and places, caches of compiled code, logs; and the
# devices and threads, which launchers set and which have columns of their own.
NOT_SPEED = re.compile(
    r"(?!NCCL_(TOPO|GRAPH|TUNER_CONFIG)_FILE$|MIOPEN_\w*DB_PATH$|HSA_OVERRIDE)"
    r"(.*_(VERSION|BUILD_NUMBER|HOME|ROOT|PATH|DIR|FILE|HOST|PORT|ARCH|ARCH_LIST|LOG_LEVEL|LOGLEVEL_DBG|LOGINFO_DBG)"
    r"|.*_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|(OMP|MKL|OPENBLAS)_NUM_THREADS|CUDA_CACHE_.*|KMP_DUPLICATE_LIB_OK"
    r"|TORCH_(LOGS.*|TRACE|SHOW_CPP_STACKTRACES|DISABLE_SHARE_RDZV_TCP_STORE)|NCCL_DEBUG.*|PYTORCH_ENABLE_MPS_FALLBACK)"
)
# What torch sets if nothing is set, and Accelerate's launcher for a single process on a CPU, which a fork does without.
DEFAULTS = {"CUDA_MODULE_LOADING": "LAZY", "KMP_AFFINITY": "granularity=fine,compact,1,0", "KMP_BLOCKTIME": "1"}
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")  # on one machine the loopback device, which a launcher sets
NONE = "none"  # that no such variable is set; an empty cell is unknown
# Kept in environment.json besides, and compared with nothing.
OTHERS = ("ACCELERATE_", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES")
# Never recorded, as also a value with a URL in it: rows and environment.json are passed on to others.
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|AUTH|COOKIE|PRIVATE|_(PASS|PAT|UR[IL])\b", re.I)
# Never recorded: they differ between launches in the same environment.
PER_LAUNCH = {"TORCHELASTIC_RUN_ID", "TORCH_NCCL_ASYNC_ERROR_HANDLING", "NCCL_ASYNC_ERROR_HANDLING"}


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


@functools.cache
def built() -> dict[str, Any] | None:
    """What setup.py noted when it built the wheel that this is: version, commit, clean. None: this is a checkout."""
    path = CHECKOUT / "built.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


@functools.cache
def commit() -> tuple[str | None, bool | None]:
    """(this checkout's commit, whether there are no uncommitted changes), of a wheel, those that it was built of.

    (None, None) where git knows none.
    """
    wheel = built()
    return (wheel["commit"], wheel["clean"]) if wheel is not None else repository.commit(CHECKOUT)


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
        "variables": of_speed(),
        "commit": sha and sha[:12] + ("" if clean else "-dirty"),
        "resbench": (built() or {}).get("version"),
        **{name: version(name) for name in ("torch", "torchvision", "accelerate")},
    }


def group_limits(root: Path = Path("/")) -> dict[str, float]:
    """The limits of this process's control groups, as far as there are any: bytes and CPUs."""
    memory, cpu = cgroups.smallest_limit(root), cgroups.cpu_quota(root)
    found = {"group_memory_bytes": memory and memory.limit_bytes, "group_cpus": cpu and cpu.cpus}
    return {name: value for name, value in found.items() if value is not None}


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
        **group_limits(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "variables": recorded((*SPEED, *GROUP_SPEED, *OTHERS)),
        **more,
    }


def recorded(families: Sequence[str]) -> dict[str, str]:
    """The variables of these families, less what may be a secret, sorted by their names."""
    prefixes = tuple(family for family in families if family.endswith("_"))
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if (name in families or name.startswith(prefixes))
        and not (name in PER_LAUNCH or SECRET.search(name) or "://" in value)
    }


def of_speed() -> str:
    """The variables that are set and change one process's speed, as a shell writes them; NONE: there are none.

    For example "ATEN_CPU_CAPABILITY=avx2 MALLOC_CONF='narenas:1, dirty_decay_ms:0'".
    """
    return as_shell({name: value for name, value in recorded(SPEED).items() if not name.startswith(GROUP_SPEED)})


def of_group_speed(machines: int) -> str:
    """The same of those that change the speed of communication, in a group on so many machines."""
    own = INTERFACES if machines == 1 else ()
    return as_shell({name: value for name, value in recorded(GROUP_SPEED).items() if name not in own})


def as_shell(variables: Mapping[str, str]) -> str:
    """Those that change speed by more than their default, as NAME=VALUE."""
    found = {name: value for name, value in variables.items() if not NOT_SPEED.fullmatch(name)}
    return shlex.join(f"{name}={value}" for name, value in found.items() if DEFAULTS.get(name) != value) or NONE


def key(environment: dict[str, Any]) -> str:
    """Twelve hex digits; equal environments have equal keys."""
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:12]


def flag(name: str) -> bool:
    """Whether an environment variable is set to yes, by Accelerate's rules."""
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "y", "t", "on")
