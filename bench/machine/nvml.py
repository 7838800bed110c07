"""What NVIDIA's management library says. None where the library, the device or the answer is missing."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

# Why clocks are held back, by the bits of nvmlClocksEventReasons (nvml.h). Not among them, since they are no weakness:
# an idle device (0x1), clocks that somebody chose (0x2) and those that a display wants (0x100).
REASONS = {
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "board_limit": 0x200,
    "reliability": 0x400,
}
# Those of them that make a GPU slower than others of its kind: heat and a power brake. A loaded GPU is at its power
# limit as a rule, and the hardware's slow-down without either may be a moment's, at a change of power state (nvml.h).
HELD_BACK = ("sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
SLOWDOWNS = (*HELD_BACK, "hw_slowdown")
# Each is asked by itself: one that a device does not support leaves the others standing.
GAUGES: dict[str, Callable[[Any, Any], float]] = {
    "energy_j": lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3,  # mJ since the driver was loaded
    "power_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
    "used_bytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    "busy": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    "temperature_c": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
    "clock_hz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM) * 1e6,
    "throttle": lambda nvml, gpu: _throttle(nvml, gpu),
}
# What somebody, or its maker, set the GPU to.
LIMITS: dict[str, Callable[[Any, Any], float]] = {
    "power_limit_w": lambda nvml, gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3,
    "application_sm_clock_hz": lambda nvml, gpu: nvml.nvmlDeviceGetApplicationsClock(gpu, nvml.NVML_CLOCK_SM) * 1e6,
    "max_sm_clock_hz": lambda nvml, gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM) * 1e6,
}
# Their counter of energy is that of CPU, GPU and memory together (ml-energy/zeus#172).
MODULES = re.compile(r"\bGH200\b")
ASKED = {**GAUGES, "processes": lambda nvml, gpu: len(nvml.nvmlDeviceGetComputeRunningProcesses(gpu))}


@contextlib.contextmanager
def _library() -> Iterator[Any]:
    """pynvml, initialised, or None where it cannot be."""
    nvml, _ = _initialised()
    try:
        yield nvml
    finally:
        if nvml is not None:
            with contextlib.suppress(nvml.NVMLError):  # the device may be gone by now
                nvml.nvmlShutdown()


def _initialised() -> tuple[Any, str]:
    """(pynvml, ""), or (None, why not)."""
    try:
        import pynvml
    except ImportError:
        return None, "no Python package nvidia-ml-py"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return None, "no libnvidia-ml.so.1"
    except pynvml.NVMLError as error:  # no driver, another version of it, no permission
        return None, _said(error)
    return pynvml, ""


def device_count() -> int | None:
    """NVIDIA GPUs in this machine, whatever CUDA_VISIBLE_DEVICES says."""
    with _library() as nvml:
        if nvml is None:
            return None
        with contextlib.suppress(nvml.NVMLError):
            return int(nvml.nvmlDeviceGetCount())
    return None


def device_names() -> set[str] | None:
    """What the GPUs of this machine are called, as CUDA calls them too."""
    with _library() as nvml:
        if nvml is None:
            return None
        with contextlib.suppress(nvml.NVMLError):
            names = [
                nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(number))
                for number in range(nvml.nvmlDeviceGetCount())
            ]
            return {name.decode() if isinstance(name, bytes) else str(name) for name in names}
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


def free_bytes(device: str) -> int | None:
    """Bytes that no process uses on the GPU with this index, in PCI order, or UUID. A Jetson does not say."""
    with _library() as nvml:
        if nvml is None:
            return None
        with contextlib.suppress(nvml.NVMLError):
            return int(nvml.nvmlDeviceGetMemoryInfo(_handle(nvml, device)).free)
    return None


def limits(uuid: str) -> dict[str, float | None]:
    """LIMITS of the GPU with this UUID."""
    with _library() as nvml:
        if nvml is not None:
            with contextlib.suppress(nvml.NVMLError):
                gpu = _by_uuid(nvml, uuid)
                answers = {name: _ask(nvml, gpu, ask) for name, ask in LIMITS.items()}
                return {name: None if isinstance(answer, str) else answer for name, answer in answers.items()}
    return dict.fromkeys(LIMITS)


def is_module(uuid: str) -> bool:
    """Whether the GPU's counter of energy is that of a whole module."""
    with _library() as nvml:
        if nvml is not None:
            with contextlib.suppress(nvml.NVMLError):
                name = nvml.nvmlDeviceGetName(_by_uuid(nvml, uuid))
                return bool(MODULES.search(name.decode() if isinstance(name, bytes) else name))
    return False


def capability(device: str) -> tuple[int, int] | None:
    """The compute capability of the GPU with this index, in PCI order, or UUID."""
    with _library() as nvml:
        if nvml is None:
            return None
        with contextlib.suppress(nvml.NVMLError):
            major, minor = nvml.nvmlDeviceGetCudaComputeCapability(_handle(nvml, device))
            return major, minor
    return None


def _handle(nvml: Any, device: str) -> Any:
    return nvml.nvmlDeviceGetHandleByIndex(int(device)) if device.isdecimal() else _by_uuid(nvml, device)


def gauges(uuid: str) -> Callable[[], dict[str, float | None]] | None:
    """What reads GAUGES of the GPU with this UUID ("GPU-..."), in J, W, bytes, shares of 1, Celsius and Hz.

    Of the throttle reasons it makes one gauge each, 1 while it holds, "throttled" for any of HELD_BACK, and "slowed"
    for hw_slowdown without them. None without the library or the device. The library then stays initialised for the
    life of the process.
    """
    nvml, _ = _initialised()
    if nvml is None:
        return None
    try:
        gpu = _by_uuid(nvml, uuid)
    except nvml.NVMLError:
        nvml.nvmlShutdown()
        return None

    def read() -> dict[str, float | None]:
        answers = {name: _ask(nvml, gpu, ask) for name, ask in GAUGES.items()}
        values = {name: None if isinstance(answer, str) else answer for name, answer in answers.items()}
        return values | reasons(values.pop("throttle"))

    return read


def _by_uuid(nvml: Any, uuid: str) -> Any:
    """The GPU with this UUID, "GPU-...". NVMLError: there is none. CUDA does not tell a part of one, a MIG device's."""
    try:
        return nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError:
        return nvml.nvmlDeviceGetHandleByUUID(uuid.replace("GPU-", "MIG-", 1))


def _ask(nvml: Any, gpu: Any, ask: Callable[[Any, Any], float]) -> float | str:
    """A value, or why there is none."""
    try:
        return float(ask(nvml, gpu))
    except (nvml.NVMLError, AttributeError) as error:  # AttributeError: a name that this nvidia-ml-py does not have
        return _said(error)


def _said(error: Exception) -> str:
    return f"NVML: {error}".rstrip(".")


def _throttle(nvml: Any, gpu: Any) -> int:
    """The bit mask of why clocks are held back; before driver 535 it had another name."""
    try:
        return int(nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu))
    except (nvml.NVMLError_FunctionNotFound, AttributeError):
        return int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu))


def reasons(mask: float | None) -> dict[str, float | None]:
    """1 or 0 for each reason in the bit mask, for HELD_BACK, and for slowed without them; None of no answer."""
    if mask is None:
        return dict.fromkeys([*REASONS, "throttled", "slowed"])
    found: dict[str, float | None] = {name: float(bool(int(mask) & bit)) for name, bit in REASONS.items()}
    throttled = any(found[name] for name in HELD_BACK)
    return found | {"throttled": float(throttled), "slowed": float(bool(found["hw_slowdown"]) and not throttled)}


def other_processes(uuid: str, own: Collection[int]) -> int | None:
    """Processes that compute on the GPU with this UUID and are none of `own` (process ids), one of which does.

    None where NVML does not say, and where it names no process of ours: then its ids are those of another pid
    namespace, as in a container, and all would look like strangers.
    """
    with _library() as nvml:
        if nvml is None:
            return None
        with contextlib.suppress(nvml.NVMLError):
            gpu = _by_uuid(nvml, uuid)
            found = {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(gpu)}
            return len(found - set(own)) if found & set(own) else None
    return None


def trouble() -> str | None:
    """Why the library cannot be asked here, or None."""
    with _library() as nvml:
        return _initialised()[1] if nvml is None else None


def refusals() -> dict[str, str]:
    """ASKED -> why it cannot be read here, of the first GPU that does not answer."""
    with _library() as nvml:
        if nvml is None:
            return dict.fromkeys(ASKED, trouble() or "")
        try:
            gpus = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError as error:
            return dict.fromkeys(ASKED, _said(error))
        found: dict[str, str] = {} if gpus else dict.fromkeys(ASKED, "NVML sees no GPU")
        for gpu, name in itertools.product(gpus, ASKED):
            answer = _ask(nvml, gpu, ASKED[name])
            if isinstance(answer, str):
                found.setdefault(name, answer)
        return found
