"""NVIDIA's management library (NVML). None where the library, the device or the answer is missing.

A `device` is the index of a GPU in PCI order, or its UUID, "GPU-...".
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
Query = Callable[[Any, Any], float]  # of (pynvml, the handle of a GPU)

# Why clocks are held back, by the bits of nvmlClocksEventReasons (nvml.h). Left out, since they are no weakness: an
# idle device (0x1), clocks that somebody chose (0x2), and clocks that a display needs (0x100).
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
# The reasons that make a GPU slower than others of its kind: heat and a power brake. Not the power cap, which a loaded
# GPU normally runs at, nor hw_slowdown alone, which may last a moment at a change of power state (nvml.h).
HELD_BACK = ("sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
SLOWDOWNS = (*HELD_BACK, "hw_slowdown")
# Each gauge is a query of its own: if a device does not support one, the others still answer.
GAUGES: dict[str, Query] = {
    "energy_j": lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3,  # mJ since the driver was loaded
    "power_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
    "used_bytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    "busy": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    "temperature_c": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
    "clock_hz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM) * 1e6,
    "throttle": lambda nvml, gpu: _throttle_mask(nvml, gpu),
}
# What the user or the maker has set the GPU to.
LIMITS: dict[str, Query] = {
    "power_limit_w": lambda nvml, gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3,
    "application_sm_clock_hz": lambda nvml, gpu: nvml.nvmlDeviceGetApplicationsClock(gpu, nvml.NVML_CLOCK_SM) * 1e6,
    "max_sm_clock_hz": lambda nvml, gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM) * 1e6,
}
# GPUs whose energy counter includes the CPU and its memory (ml-energy/zeus#172).
MODULES = re.compile(r"\bGH200\b")
QUERIES = {**GAUGES, "processes": lambda nvml, gpu: len(nvml.nvmlDeviceGetComputeRunningProcesses(gpu))}


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
        return None, _text(error)
    return pynvml, ""


@contextlib.contextmanager
def _library() -> Iterator[tuple[Any, str]]:
    """As _initialised, until the block ends."""
    nvml, trouble = _initialised()
    try:
        yield nvml, trouble
    finally:
        if nvml is not None:
            with contextlib.suppress(nvml.NVMLError):  # the device may be gone by now
                nvml.nvmlShutdown()


def _answer(query: Callable[[Any], T]) -> T | None:
    """What the query returns, given pynvml; None without the library, and if it raises NVMLError."""
    with _library() as (nvml, _):
        if nvml is not None:
            with contextlib.suppress(nvml.NVMLError):
                return query(nvml)
    return None


def device_count() -> int | None:
    """NVIDIA GPUs in this machine, whatever CUDA_VISIBLE_DEVICES says."""
    return _answer(lambda nvml: int(nvml.nvmlDeviceGetCount()))


def device_names() -> set[str] | None:
    """The names of this machine's GPUs, which are the same in CUDA."""
    return _answer(lambda nvml: {str(nvml.nvmlDeviceGetName(gpu)) for gpu in _handles(nvml)})


def driver_version() -> str | None:
    """The NVIDIA driver's version."""
    return _answer(lambda nvml: str(nvml.nvmlSystemGetDriverVersion()))


def free_bytes(device: str) -> int | None:
    """Bytes that no process uses on the GPU. A Jetson does not say."""
    return _answer(lambda nvml: int(nvml.nvmlDeviceGetMemoryInfo(_handle(nvml, device)).free))


def limits(uuid: str) -> dict[str, float | None]:
    """LIMITS of the GPU with this UUID."""
    values = _answer(lambda nvml: _values(nvml, _handle(nvml, uuid), LIMITS))
    return dict.fromkeys(LIMITS) if values is None else values


def index(uuid: str) -> int | None:
    """The number that nvidia-smi has for the GPU with this UUID; a part of one (MIG) has none of its own."""
    return _answer(lambda nvml: int(nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByUUID(uuid))))


def is_module(uuid: str) -> bool:
    """Whether the energy counter of the GPU with this UUID is that of a whole module (see MODULES)."""
    return bool(MODULES.search(_answer(lambda nvml: str(nvml.nvmlDeviceGetName(_handle(nvml, uuid)))) or ""))


def capability(device: str) -> tuple[int, int] | None:
    """The compute capability of the GPU, such as (9, 0)."""
    return _answer(lambda nvml: tuple(nvml.nvmlDeviceGetCudaComputeCapability(_handle(nvml, device))))


def other_processes(uuid: str, own: Collection[int]) -> int | None:
    """How many processes compute on the GPU with this UUID that are not in `own` (process ids).

    One of `own` must compute there. If NVML names none of them, its ids are those of another pid namespace, as in a
    container, and all would look like other processes: then the answer is None.
    """
    pids = _answer(lambda nvml: {each.pid for each in nvml.nvmlDeviceGetComputeRunningProcesses(_handle(nvml, uuid))})
    return len(pids - set(own)) if pids and pids & set(own) else None


def trouble() -> str | None:
    """Why the library cannot be used here; None: it can."""
    with _library() as (_, reason):
        return reason or None


def refusals() -> dict[str, str]:
    """QUERIES that a GPU here does not answer -> why not, from the first GPU that does not."""
    with _library() as (nvml, reason):
        if nvml is None:
            return dict.fromkeys(QUERIES, reason)
        try:
            gpus = _handles(nvml)
        except nvml.NVMLError as error:
            return dict.fromkeys(QUERIES, _text(error))
        refused: dict[str, str] = {} if gpus else dict.fromkeys(QUERIES, "NVML sees no GPU")
        for gpu, name in itertools.product(gpus, QUERIES):
            value = _value(nvml, gpu, QUERIES[name])
            if isinstance(value, str):
                refused.setdefault(name, value)
        return refused


def gauges(uuid: str) -> Callable[[], dict[str, float | None]] | None:
    """A function that reads GAUGES of the GPU with this UUID, in J, W, bytes, shares of 1, Celsius and Hz.

    Instead of "throttle" it returns `reasons`. None without the library or the device. The library then stays
    initialised for the life of the process.
    """
    nvml, _ = _initialised()
    if nvml is None:
        return None
    try:
        gpu = _handle(nvml, uuid)
    except nvml.NVMLError:
        nvml.nvmlShutdown()
        return None

    def read() -> dict[str, float | None]:
        values = _values(nvml, gpu, GAUGES)
        return values | reasons(values.pop("throttle"))

    return read


def reasons(mask: float | None) -> dict[str, float | None]:
    """1.0 or 0.0 for each of REASONS in the bit mask; for "throttled", any of HELD_BACK; and for "slowed", hw_slowdown
    without them. All None if the mask is unknown."""
    if mask is None:
        return dict.fromkeys([*REASONS, "throttled", "slowed"])
    held: dict[str, float | None] = {name: float(bool(int(mask) & bit)) for name, bit in REASONS.items()}
    throttled = any(held[name] for name in HELD_BACK)
    return held | {"throttled": float(throttled), "slowed": float(bool(held["hw_slowdown"]) and not throttled)}


def _handles(nvml: Any) -> list[Any]:
    return [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]


def _handle(nvml: Any, device: str) -> Any:
    """Raises NVMLError if there is no such GPU."""
    if device.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(device))
    try:
        return nvml.nvmlDeviceGetHandleByUUID(device)
    except nvml.NVMLError:
        # CUDA names a MIG device as it names a whole GPU; NVML does not.
        return nvml.nvmlDeviceGetHandleByUUID(device.replace("GPU-", "MIG-", 1))


def _values(nvml: Any, gpu: Any, queries: dict[str, Query]) -> dict[str, float | None]:
    values = {name: _value(nvml, gpu, query) for name, query in queries.items()}
    return {name: None if isinstance(value, str) else value for name, value in values.items()}


def _value(nvml: Any, gpu: Any, query: Query) -> float | str:
    """A value, or why there is none."""
    try:
        return float(query(nvml, gpu))
    except (nvml.NVMLError, AttributeError) as error:  # AttributeError: a function that this nvidia-ml-py does not have
        return _text(error)


def _text(error: Exception) -> str:
    return f"NVML: {error}".rstrip(".")


def _throttle_mask(nvml: Any, gpu: Any) -> int:
    """The bit mask of REASONS. Before driver 535 the function had another name."""
    try:
        return int(nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu))
    except (nvml.NVMLError_FunctionNotFound, AttributeError):
        return int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu))
