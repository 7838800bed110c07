"""What NVIDIA's management library says. None where the library, the device or the answer is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def _library() -> Iterator[Any]:
    """pynvml, initialised, or None where it cannot be."""
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no library, no driver, no permission
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def device_count() -> int | None:
    """NVIDIA GPUs in this machine, whatever CUDA_VISIBLE_DEVICES says."""
    with _library() as nvml:
        if nvml is None:
            return None
        with contextlib.suppress(nvml.NVMLError):
            return int(nvml.nvmlDeviceGetCount())
    return None


def driver_version() -> str | None:
    """The NVIDIA driver's version."""
    with _library() as nvml:
        if nvml is None:
            return None
        with contextlib.suppress(nvml.NVMLError):
            version = nvml.nvmlSystemGetDriverVersion()
            return version.decode() if isinstance(version, bytes) else str(version)
    return None


def used_bytes(uuid: str) -> int | None:
    """Bytes in use on the GPU with this UUID ("GPU-..."), by all processes. A Jetson does not say."""
    with _library() as nvml:
        if nvml is None:
            return None
        with contextlib.suppress(nvml.NVMLError):
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
    return None


def free_bytes(device: str) -> int | None:
    """Bytes that no process uses on the GPU with this index, in PCI order, or UUID. A Jetson does not say."""
    with _library() as nvml:
        if nvml is None:
            return None
        with contextlib.suppress(nvml.NVMLError):
            find = nvml.nvmlDeviceGetHandleByIndex if device.isdecimal() else nvml.nvmlDeviceGetHandleByUUID
            return int(nvml.nvmlDeviceGetMemoryInfo(find(int(device) if device.isdecimal() else device)).free)
    return None
