"""Clocks that time windows: on CUDA with events in the device's stream, on a CPU with the host's clock."""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch


class Clock:
    """Call start(), then mark() at the end of each window, then read(), which leaves the windows' seconds in `spans`.

    All probes share one clock, so that each moment is recorded once. Recording does not wait for the device. Reading
    waits once, for the last mark; all earlier ones have been reached by then.
    """

    def __init__(self) -> None:
        self.marks: list[Any] = []
        self.spans: list[float] = []

    def start(self) -> None:
        self.marks = [self.now()]

    def mark(self) -> None:
        self.marks.append(self.now())

    def read(self) -> list[float]:
        if self.marks:
            self.wait(self.marks[-1])
        self.spans = [self.seconds(before, after) for before, after in itertools.pairwise(self.marks)]
        self.marks = self.marks[-1:]
        return self.spans

    def now(self) -> Any:
        """This moment. The host's clock serves a CPU, which has computed when a call returns."""
        return time.perf_counter()

    def wait(self, moment: Any) -> None:
        """Wait until the device has reached this moment."""

    def seconds(self, before: Any, after: Any) -> float:
        """Seconds between two moments that the device has reached."""
        return after - before


class CudaClock(Clock):
    """A clock whose moments are CUDA events in the device's stream."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def now(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def wait(self, moment: Any) -> None:
        moment.synchronize()

    def seconds(self, before: Any, after: Any) -> float:
        return before.elapsed_time(after) / 1000  # from ms


def clock_for(device: torch.device) -> Clock:
    """The clock of this device."""
    return CudaClock(device) if device.type == "cuda" else Clock()
