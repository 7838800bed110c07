"""Time on the device's own time line."""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch


class Clock:
    """start(), then mark() at the end of each stretch, then read() the stretches' seconds, which `spans` keeps.

    One serves all who measure, so that each moment is recorded once. Recording does not wait for the device, and
    reading waits once, for the last mark: with it, every moment before can be read.
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
        """This moment. Here that of the host: for a device that computes before the call returns, the CPU."""
        return time.perf_counter()

    def wait(self, moment: Any) -> None:
        """Until this moment has been."""

    def seconds(self, before: Any, after: Any) -> float:
        """Between two moments that have been."""
        return after - before


class CudaClock(Clock):
    """Events in the device's stream."""

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
        return before.elapsed_time(after) / 1000


def clock_for(device: torch.device) -> Clock:
    """The clock of this device."""
    return CudaClock(device) if device.type == "cuda" else Clock()
