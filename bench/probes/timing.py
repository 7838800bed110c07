"""Step and epoch time, throughput, and the wait for data.

Throughput = images of all processes / the slowest process's time for them, without warm-up. It is never a mean of
rates, and never one rank's rate times the number of ranks: both overstate a group in which one rank is slow.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bench.column import Column, Shown
from bench.probes import Aggregation, Span, Value, ratio
from bench.probes import Probe as Base

if TYPE_CHECKING:
    import torch

OF_THREADS = "summed over a process's threads, of the processes' median; empty: not on a CPU."
WAIT = "Mean wait for data per measured step, of the rank that waited longest."
OF_HEAD = "with features once, of the head alone on features that were computed before (feature_pass_s)."
RATE = f"Images of all processes / the slowest process's time for them, without unmeasured_windows; {OF_HEAD}"

STEPS = [
    Column("step_time_s", "float", "s", "max", "Time of the step, data included, on the slowest rank."),
    Column(
        "data_wait_s", "float", "s", "max", "Part of step_time_s in which the rank that waited longest waited for data."
    ),
    Column("cpu_time_s", "float", "s", "median", f"CPU time of the step, {OF_THREADS}"),
]
EPOCHS = [
    Column(
        "epoch_time_s",
        "float",
        "s",
        "max",
        "Training time of the epoch: of all its steps, without the wait for its first micro-batch and probe_time_s; "
        f"{OF_HEAD}",
    ),
    Column("images_per_s", "float", "images/s", "", RATE),
    Column("data_wait_s", "float", "s", "max", WAIT),
]
TRIALS = [
    Column("measured_windows", "int", "", "max", "Optimizer steps that the times are of: all but unmeasured_windows."),
    Column(
        "unmeasured_windows",
        "int",
        "",
        "max",
        "Optimizer steps that are in no time: warmup_windows; on a GPU also those of the first second, at most half "
        "of all; the first of each size of micro-batch; and those in which torch compiled.",
    ),
    Column("measured_images", "int", "images", "max", "Images of all processes in them."),
    Column("measured_time_s", "float", "s", "max", "The slowest process's time for them."),
    Column("images_per_s", "float", "images/s", "", RATE, shown=Shown("images/s", spread=True, order=10)),
    Column("images_per_s_per_process", "float", "images/s", "", "images_per_s / processes."),
    Column(
        "step_time_p50_s",
        "float",
        "s",
        "",
        "Median time of the measured full steps, each on its slowest rank.",
        shown=Shown("step ms\np50", 1000, spread=True, order=11),
    ),
    Column("step_time_p90_s", "float", "s", "", "Its 90th percentile."),
    Column("step_time_p99_s", "float", "s", "", "Its 99th percentile."),
    Column(
        "step_cpu_time_p50_s",
        "float",
        "s",
        "",
        f"Median CPU time of the measured full steps, {OF_THREADS} Being pre-empted does not prolong it; loader "
        "workers are not in it.",
    ),
    Column(
        "step_time_cv",
        "float",
        "1",
        "",
        "Its standard deviation / its mean.",
        shown=Shown("step\ncv", spec=".2f", order=12),
    ),
    Column(
        "epoch_time_s",
        "float",
        "s",
        "max",
        f"Median of the epochs' times, without the first if there are several; {OF_HEAD}",
        shown=Shown("epoch s", spread=True, order=13),
    ),
    Column("data_wait_s", "float", "s", "max", WAIT),
    Column("probe_time_s", "float", "s", "max", "Time for reading the probes between steps; it is in no other time."),
]


class Probe(Base):
    """Times steps on the device's time line, and the wait for data on the host's."""

    TOTALS: ClassVar[dict[str, Aggregation]] = {
        "measured_windows": ("counter", "max"),
        "unmeasured_windows": ("counter", "max"),
        "measured_images": ("counter", "max"),
        "measured_time_s": ("counter", "max"),
        "measured_wait_s": ("counter", "max"),
        "epoch_time_s": ("counter", "max"),
    }

    def begin(self, device: torch.device) -> None:
        self.count = dict.fromkeys(self.TOTALS, 0.0)
        self.waits: list[float] = []
        self.images: list[int] = []
        self.read: list[tuple[int, float, float]] = []  # images, time and wait of the windows read last
        self.wait = 0.0
        # On a GPU the host's CPU time is mostly waiting.
        self.cpu_clock = time.process_time if device.type == "cpu" else None
        self.cpu_marks: list[float] = []

    def epoch_begin(self) -> None:
        self.wait = 0.0

    def resume(self) -> None:
        self.cpu_marks = [self.cpu_clock()] if self.cpu_clock else []

    def batch_fetched(self, seconds: float) -> None:
        self.wait += seconds

    def window_end(self, images: int, measured: bool) -> None:
        self.waits.append(self.wait)
        self.images.append(images)
        self.wait = 0.0
        if self.cpu_clock:
            self.cpu_marks.append(self.cpu_clock())

    def windows(self) -> dict[str, list[Value]]:
        steps, waits = self.clock.spans, self.waits
        self.count["epoch_time_s"] += sum(steps)
        self.read = list(zip(self.images, steps, waits, strict=True))
        cpu: list[Value] = [after - before for before, after in itertools.pairwise(self.cpu_marks)]
        self.waits, self.images, self.cpu_marks = [], [], self.cpu_marks[-1:]
        cpu = cpu if self.cpu_clock else [None] * len(steps)
        return {"step_time_s": list(steps), "data_wait_s": list(waits), "cpu_time_s": cpu}

    def windows_decided(self, measured: Sequence[bool]) -> None:
        for (images, step, wait), counts in zip(self.read, measured, strict=True):
            self.count["measured_windows" if counts else "unmeasured_windows"] += 1
            self.count["measured_images"] += images * counts
            self.count["measured_time_s"] += step * counts
            self.count["measured_wait_s"] += wait * counts

    def totals(self) -> dict[str, Value]:
        return dict(self.count)

    def derive(self, span: Span) -> dict[str, Value]:
        totals = span.totals
        values = {
            "images_per_s": ratio(totals["measured_images"], totals["measured_time_s"]),
            "data_wait_s": ratio(totals["measured_wait_s"], totals["measured_windows"]),
            "epoch_time_s": totals["epoch_time_s"] or None,
        }
        if span.epochs is None:
            return values
        times = [epoch["epoch_time_s"] for epoch in span.epochs]
        return values | {"epoch_time_s": percentile(times[1:] or times, 50)} | spread(span.windows)


def spread(windows: Sequence[Mapping[str, Any]]) -> dict[str, Value]:
    """Percentiles of the step times, over full windows: an epoch's last, short one is less work."""
    full = max((window["images"] for window in windows), default=0)
    full_windows = [window for window in windows if window["images"] == full]
    times = [window["step_time_s"] for window in full_windows]
    cpu_times = [window["cpu_time_s"] for window in full_windows]
    values = {f"step_time_p{q}_s": percentile(times, q) for q in (50, 90, 99)}
    deviation = statistics.stdev(times) if len(times) > 1 else None
    values["step_cpu_time_p50_s"] = None if None in cpu_times else percentile(cpu_times, 50)
    return values | {"step_time_cv": ratio(deviation, statistics.fmean(times) if times else None)}


def percentile(values: Sequence[float], q: float) -> Value:
    """The q-th percentile, interpolated linearly; None if there are no values."""
    import numpy

    return float(numpy.percentile(values, q)) if values else None
