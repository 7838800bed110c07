"""Time between marks on the device's own time line."""

from __future__ import annotations

import itertools
import time
from typing import Protocol

import torch


class Clock(Protocol):
    """start(), then mark() at the end of each stretch, then read() the stretches' seconds, for which it may wait()."""

    def start(self) -> None: ...
    def mark(self) -> None: ...
    def wait(self) -> None: ...
    def read(self) -> list[float]: ...


class HostClock:
    """For a device that computes before the call returns: the CPU."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def start(self) -> None:
        self.marks = [time.perf_counter()]

    def mark(self) -> None:
        self.marks.append(time.perf_counter())

    def wait(self) -> None:
        pass

    def read(self) -> list[float]:
        spans = [after - before for before, after in itertools.pairwise(self.marks)]
        self.marks = self.marks[-1:]
        return spans


class CudaClock:
    """Events in the device's stream: marking does not wait, reading waits once for the last of them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.events: list[torch.cuda.Event] = []

    def start(self) -> None:
        self.events = []
        self.mark()

    def mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        self.events.append(event)

    def wait(self) -> None:
        if self.events:
            self.events[-1].synchronize()

    def read(self) -> list[float]:
        self.wait()
        spans = [before.elapsed_time(after) / 1000 for before, after in itertools.pairwise(self.events)]
        self.events = self.events[-1:]
        return spans


def clock_for(device: torch.device) -> Clock:
    """The clock of this device."""
    return CudaClock(device) if device.type == "cuda" else HostClock()
