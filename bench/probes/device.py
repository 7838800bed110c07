"""The device: energy, power, memory in use, utilisation, clock, temperature, throttling, and other processes on it.

A thread samples the GPU through NVML and, on a Jetson, the module's own files; of another machine's CPU it samples the
energy. Sums and means are over the training of the epochs, without evaluation; peaks are over the whole trial, from its
set-up to its end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psutil

from bench.column import Column, Shown, percent
from bench.instruments.sampler import Sampler
from bench.machine import environment, gpus, nvml, rapl, tegra
from bench.probes import Aggregation, Cell, Span, Value, ratio
from bench.probes import Probe as Base

if TYPE_CHECKING:
    import torch

COUNTERS = ("energy_j", *tegra.EVENTS)
INTEGRALS = ("power_w", "busy", "clock_hz", "throttled", *nvml.REASONS)
LASTING = ("slowed",)
COUNTED = (*COUNTERS, *INTEGRALS, *LASTING, "time_s")
# The readings of a Jetson that belong to a trial on its CPU.
ON_CPU = {"power_w", "temperature_c", *tegra.EVENTS}
PEAKS = {"peak_device_bytes": "used_bytes", "peak_temperature_c": "temperature_c"}  # column -> gauge

EPOCHS = TRIALS = [
    Column(
        "energy_j",
        "float",
        "J",
        "sum",
        "Energy while training, without evaluation: of the GPUs used; on a Jetson, of all that its power_rails feed; "
        "on a CPU, of the machines' CPU packages and of memory if that is counted, other processes' share included. "
        "With features once, of the head alone, without feature_pass_s.",
    ),
    Column(
        "energy_source",
        "str",
        "",
        "",
        "counter: the GPU's energy counter; module: a GH200's counter, which includes its CPU and memory; power: "
        "integrated from sampled power; rapl: the CPU's counters.",
    ),
    Column(
        "mean_power_w", "float", "W", "sum", "energy_j / the time in which it was measured, of all devices together."
    ),
    Column(
        "energy_per_image_j",
        "float",
        "J",
        "",
        "energy_j / the training images of those epochs.",
        shown=Shown("J per\nimage", spread=True, order=33),
    ),
    Column("images_per_j", "float", "images/J", "", "The training images of those epochs / energy_j."),
    Column(
        "peak_device_bytes",
        "int",
        "bytes",
        "max",
        "Peak in use on a device, including other processes, in samples so far; on a Jetson, of its one memory.",
    ),
    Column("device_utilisation", "float", "1", "", "Share of training in which the device was busy, mean of devices."),
    Column("sm_clock_hz", "float", "Hz", "", "Mean clock of the GPU's multiprocessors while training."),
    Column("peak_temperature_c", "float", "°C", "max", "Highest temperature of a GPU in samples so far."),
    Column(
        "throttled_share",
        "float",
        "1",
        "",
        "Share of training in which heat, a power brake or a lasting hw_slowdown held clocks back, mean of devices.",
    ),
    Column(
        "power_capped_share",
        "float",
        "1",
        "",
        "Share of training at the power limit (sw_power_cap), as a loaded GPU is, mean of devices.",
        shown=percent("at power\nlimit %", 34, ".0f", spread=False),
    ),
    Column(
        "throttle_reasons",
        "str",
        "",
        "",
        "Everything that held clocks back, in NVML's words, or none; empty: it cannot be read.",
    ),
    Column(
        "other_processes",
        "int",
        "",
        "max",
        "Most other processes computing on a device, whenever the probes were read.",
    ),
]
# Column -> its gauges; one of them is enough.
NEEDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("energy_j", "energy_source", "mean_power_w", "energy_per_image_j", "images_per_j"), ("energy_j", "power_w")
    ),
    **{column: (gauge,) for column, gauge in PEAKS.items()},
    "device_utilisation": ("busy",),
    "sm_clock_hz": ("clock_hz",),
    "throttled_share": ("throttle",),
    "power_capped_share": ("throttle",),
    "throttle_reasons": ("throttle", *tegra.EVENTS),
    "other_processes": ("processes",),
}


class Probe(Base):
    """One rank reads each device. Other ranks on it report 0, which changes neither the sums nor the maxima."""

    TOTALS: ClassVar[dict[str, Aggregation]] = {
        **{f"sampled_{name}": ("counter", "sum") for name in COUNTED},
        "peak_device_bytes": ("peak", "max"),
        "peak_temperature_c": ("peak", "max"),
        "counted_time_s": ("counter", "max"),
        "trained_images": ("counter", "max"),
        "other_processes": ("peak", "max"),
    }

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def begin(self, device: torch.device) -> None:
        # Each rank has its own CUDA device. On a CPU all ranks of a machine share it, and the first of them reads.
        number = (device.index or 0) if device.type == "cuda" else 0
        self.reads = int(os.environ.get("LOCAL_RANK", "0")) == number
        self.cuda = device if device.type == "cuda" and self.reads else None
        self.uuid = None
        self.images = 0.0
        self.most: dict[str, Value] = {"in_use": 0.0, "others": 0.0}
        if self.cuda is not None:
            from bench.machine import cuda

            self.uuid, self.own = cuda.uuid(device), own_processes()
        self.counter = "counter" if device.type == "cuda" else "rapl"
        if self.uuid is not None and nvml.is_module(self.uuid):
            self.counter = "module"
        read = gauges(self.uuid, self.root) if self.reads else None
        self.sampler = Sampler(read, COUNTERS, INTEGRALS, PEAKS.values(), LASTING) if read is not None else None
        self.samples_memory = self.sampler is not None and self.sampler.peaks["used_bytes"] is not None
        if self.sampler is not None:
            self.sampler.start()

    def epoch_begin(self) -> None:
        if self.sampler is not None:
            self.sampler.count(True)

    def meet(self, partners: frozenset[int]) -> None:
        super().meet(partners)
        self.most["others"] = 0.0  # the partners may have been there before they were known

    def pause(self) -> None:
        if self.sampler is not None:
            self.sampler.count(False)

    def resume(self) -> None:
        if self.sampler is not None and not self.sampler.counting:
            self.sampler.count(True)

    def window_end(self, images: int, measured: bool) -> None:
        self.images += images

    def epoch_end(self) -> None:
        if self.sampler is not None:
            self.sampler.count(False)

    def end(self) -> None:
        if self.sampler is not None:
            self.sampler.stop()

    def totals(self) -> dict[str, Value]:
        if not self.reads:
            return {name: self.images if name == "trained_images" else 0.0 for name in self.TOTALS}
        counted, peaks = self.sampler.totals() if self.sampler is not None else ({}, {})
        values = {f"sampled_{name}": counted.get(name) for name in COUNTED}
        values |= {column: peaks.get(gauge) for column, gauge in PEAKS.items()}
        values |= {"counted_time_s": counted.get("time_s"), "trained_images": self.images}
        if self.cuda is not None and not self.samples_memory:
            from bench.machine import cuda

            values["peak_device_bytes"] = self._most("in_use", cuda.in_use(self.cuda))
        # Listed here, off the clock: the driver may take milliseconds for it.
        others = nvml.other_processes(self.uuid, self.own | self.partners) if self.uuid is not None else None
        return values | {"other_processes": self._most("others", others)}

    def _most(self, name: str, value: Value) -> Value:
        most = self.most[name]
        self.most[name] = None if most is None or value is None else max(most, value)
        return self.most[name]

    def derive(self, span: Span) -> dict[str, Cell]:
        totals, device_s = span.totals, span.totals["sampled_time_s"]
        # Of sides that alternate faster than a power sensor follows, each would have some of the other's energy.
        energy_j, source = (None, None) if self.partners else energy(totals, self.counter)
        peaks = {name: totals[name] for name in (*PEAKS, "other_processes")}
        counts = ("peak_device_bytes", "other_processes")
        return {
            "energy_j": energy_j,
            "energy_source": source,
            "mean_power_w": ratio(energy_j, totals["counted_time_s"]),
            "energy_per_image_j": ratio(energy_j, totals["trained_images"]),
            "images_per_j": ratio(totals["trained_images"], energy_j),
            "device_utilisation": ratio(totals["sampled_busy"], device_s),
            "sm_clock_hz": ratio(totals["sampled_clock_hz"], device_s),
            "throttled_share": ratio(held_back_s(totals), device_s),
            "power_capped_share": ratio(totals["sampled_sw_power_cap"], device_s),
            "throttle_reasons": throttle_reasons(totals),
            **{name: int(value) if name in counts and value is not None else value for name, value in peaks.items()},
        }


def gauges(uuid: str | None, root: Path) -> Callable[[], dict[str, Value]] | None:
    """A function that reads the GPU of this UUID and, on a Jetson, the board; None if neither can be read.

    A Jetson's own files take precedence over NVML, as far as the first reading finds values in them. Without a GPU
    (`uuid` None), only the board's power and temperature belong to the trial, or the energy of another machine's CPU.
    """
    gpu = nvml.gauges(uuid) if uuid is not None else None
    board = tegra.gauges(root) if environment.is_jetson(root) else None
    from_board = {name for name, value in board().items() if value is not None} if board is not None else set()
    if uuid is None:
        from_board &= ON_CPU
    cpu = rapl.counter(root) if uuid is None and board is None else None

    def read() -> dict[str, Value]:
        values = gpu() if gpu is not None else {}
        if cpu is not None:
            values["energy_j"] = cpu()
        if "power_w" in from_board:
            values["energy_j"] = None  # NVML's counter is of the GPU alone, the board's power of the whole module
        found = board() if board is not None else {}
        return values | {name: found[name] for name in from_board}

    return read if any(value is not None for value in read().values()) else None


def own_processes() -> set[int]:
    """The ids of the trial's processes on this machine: of several, all children of the group's launcher."""
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == 1:
        return {os.getpid()}
    return {os.getpid(), *(child.pid for child in psutil.Process(os.getppid()).children())}


def held_back_s(totals: Mapping[str, Value]) -> Value:
    """Seconds in which heat, a power brake or a fault slowed a device down; None if it cannot be read."""
    throttled, slowed = totals["sampled_throttled"], totals["sampled_slowed"]
    return None if throttled is None or slowed is None else throttled + slowed


def energy(totals: Mapping[str, Value], counter: str) -> tuple[Value, str | None]:
    """(joules, their source; that of counted ones is `counter`). Power is always drawn: 0 joules mean that a counter
    did not advance, and are unknown."""
    if not totals["counted_time_s"]:
        return None, None
    for name, source in (("energy_j", counter), ("power_w", "power")):
        if found := totals[f"sampled_{name}"]:
            return found, source
    return None, None


def throttle_reasons(totals: Mapping[str, Value]) -> str | None:
    """The reasons that occurred; "none" if NVML reports reasons and there was none; None if it cannot be read."""
    seen = [name for name in (*nvml.REASONS, *tegra.EVENTS) if totals[f"sampled_{name}"]]
    known = totals["sampled_time_s"] and totals["sampled_throttled"] is not None
    return " ".join(seen) or ("none" if known else None)


def unreadable(root: Path = Path("/")) -> dict[str, str]:
    """Column -> why it cannot be read here."""
    why, from_board = gpus.why_none(), set[str]()
    refused = dict.fromkeys(nvml.QUERIES, f"needs a CUDA device: {why}") if why else nvml.refusals()
    if environment.is_jetson(root):
        from_board = {name for name, value in tegra.gauges(root)().items() if value is not None}
        from_board = from_board & ON_CPU if why else from_board
        refused = {name: f"{text}, and no file of this Jetson has it" for name, text in refused.items()}
    elif why and (of_cpu := rapl.why_not(root)):
        refused["energy_j"] += f"; of the CPU: {of_cpu}"
    elif why:
        del refused["energy_j"]
    readable = from_board | (set(nvml.QUERIES) - set(refused))
    if not why:
        readable.add("used_bytes")  # CUDA knows it if NVML does not
    return {column: refused[names[0]] for column, names in NEEDS.items() if not readable & set(names)}
