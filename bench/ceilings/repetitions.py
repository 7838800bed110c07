"""Times one piece of work again and again, by the suite's own clock, on all ranks at once."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.instruments.clock import clock_for

Gather = Callable[[list[float]], list[list[float]]]
AMOUNTS = ("flops", "bytes", "images")  # of a call
MOST_CALLS = 2**12  # in a repetition


@dataclass(frozen=True)
class Effort:
    """How often the work is repeated: `repetitions` times; if that takes more than `limit_s`, fewer, at least `fewest`.

    A repetition calls it as often as fills `repetition_s`, so that the clock's own error does not count.
    """

    repetitions: int = 20
    fewest: int = 5
    repetition_s: float = 0.02
    limit_s: float = 1.0


@dataclass(frozen=True)
class Times:
    """Seconds per call, one for each repetition of `calls` calls."""

    calls: int
    seconds: list[float]

    def quartiles(self) -> list[float]:
        """Lower quartile, median, upper quartile; equal for a single repetition."""
        if len(self.seconds) == 1:
            return self.seconds * 3
        return statistics.quantiles(self.seconds, n=4, method="inclusive")


def alone(numbers: list[float]) -> list[list[float]]:
    """As a group's `gather`, for a process that measures alone."""
    return [numbers]


def repeat(call: Callable[[], Any], device: torch.device, effort: Effort, gather: Gather = alone) -> Times:
    """Call once to warm up, find how many calls make a repetition, and time the repetitions.

    All ranks of `gather` make the same calls: a collective needs that, and devices that share power or a bus are busy
    at the same time.
    """
    clock, calls = clock_for(device), 1
    call()
    while True:
        clock.start()
        for _ in range(calls):
            call()
        clock.mark()
        slowest = max(rank_s for (rank_s,) in gather(clock.read()))
        if slowest >= effort.repetition_s or calls >= MOST_CALLS:
            break
        calls *= 2
    count = max(effort.fewest, min(effort.repetitions, math.ceil(effort.limit_s / max(slowest, 1e-9))))
    gather([0.0])  # all begin together
    clock.start()
    for _ in range(count):
        for _ in range(calls):
            call()
        clock.mark()
    return Times(calls, [seconds / calls for seconds in clock.read()])


def repeat_next(items: Iterator[Any], device: torch.device, effort: Effort, calls: int, skipped: int) -> Times:
    """Time repetitions of taking `calls` items, after the first `skipped` ones, which were prepared off the clock.

    Stops at the end of the items, or as `Effort` says. Raises StopIteration if there are not enough for one repetition.
    """
    for _ in range(skipped):
        next(items)
    clock, began_s = clock_for(device), time.monotonic()
    clock.start()
    for done in range(effort.repetitions):
        if done >= effort.fewest and time.monotonic() - began_s > effort.limit_s:
            break
        if len(list(itertools.islice(items, calls))) < calls:
            break
        clock.mark()
    seconds = [each / calls for each in clock.read()]
    if not seconds:
        raise StopIteration(f"fewer than {skipped + calls} items")
    return Times(calls, seconds)


def slowest_of(ranks: Sequence[Sequence[float]], calls: int) -> Times:
    """Each repetition's time on its slowest rank."""
    return Times(calls, [max(seconds) for seconds in zip(*ranks, strict=True)])


def row(times: Sequence[float], *, calls: int, repetitions: int, **more: Any) -> dict[str, Any]:
    """The cells of ceilings.csv that follow from quartiles of a call's time, and from a call's work in `more`.

    A time too short for the clock gives no rate.
    """
    low, middle, high = times
    known = [name for name in AMOUNTS if more.get(f"call_{name}")]
    rates = {f"{name}_per_s": more[f"call_{name}"] / middle if middle else None for name in known}
    spread = {"call_time_p25_s": low, "call_time_p50_s": middle, "call_time_p75_s": high}
    return {**more, "calls": calls, "repetitions": repetitions, **spread, **rates}
