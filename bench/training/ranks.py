"""What each rank measured, out of numbers that the ranks share anyway: those for steps.csv, and their totals.

So rank 0 has the rows of ranks.csv without another collective, and also when the trial ends badly. What they mean is
said in bench/record/rank_columns.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from bench.probes import Value, difference, ratio

PEAKS = ("peak_allocated_bytes", "peak_reserved_bytes", "peak_rss_bytes")
# Column -> the total that it is the mean of, per measured step.
MEANS = {"data_wait_s": "measured_wait_s", "exposed_communication_s": "measured_exposed_s"}

Totals = Mapping[str, Value]


def own_times(ranks: Sequence[Mapping[str, Sequence[Value]]], windows: int) -> list[tuple[float, ...]]:
    """For each of so many windows, each rank's own time; nan if its waiting for the others is unknown.

    `ranks`: what each measured, by columns of steps.csv, with a value for each window.
    """
    unknown: list[Value] = [None] * windows
    no_wait: list[Value] = [0.0] * windows
    found = []
    for rank in ranks:
        waits = rank.get("exposed_communication_s", unknown) if len(ranks) > 1 else no_wait
        pairs = zip(rank.get("step_time_s", unknown), waits, strict=True)
        found.append([math.nan if step is None or wait is None else step - wait for step, wait in pairs])
    return list(zip(*found, strict=True))


def rank_columns(
    windows: Sequence[Mapping[str, Any]], own: Sequence[float], start: Sequence[Totals], now: Sequence[Totals]
) -> list[dict[str, Any]]:
    """Each rank's columns of ranks.csv that are measured, rank 0 first.

    `windows`: the measured rows of steps.csv. `own`: for each of them, the own times of the ranks. `start` and `now`:
    the ranks' totals at the start and at the last reading.
    """
    most = max((window["images"] for window in windows), default=0)
    full = [window["images"] == most for window in windows]  # an epoch's last, short window is less work
    times = numpy.array(own, dtype=float).reshape(len(windows), len(now))[full]
    return [
        {"windows": len(times), **of_own, **of_totals(before, after)}
        for of_own, before, after in zip(of_own_times(times), start, now, strict=True)
    ]


def of_own_times(times: numpy.ndarray) -> list[dict[str, Any]]:
    """Each rank's columns about these own times, (windows, ranks)."""
    windows, ranks = times.shape
    if not windows or numpy.isnan(times).any():
        return [{} for _ in range(ranks)]
    medians, nineties = numpy.percentile(times, (50, 90), axis=0)
    slowest = times == times.max(axis=1, keepdims=True)  # equal ones share the window
    shares = (slowest / slowest.sum(axis=1, keepdims=True)).mean(axis=0)
    return [
        {
            "own_step_time_p50_s": float(medians[rank]),
            "own_step_time_p90_s": float(nineties[rank]),
            "slowest_share": float(shares[rank]) if ranks > 1 else None,
        }
        for rank in range(ranks)
    ]


def of_totals(start: Totals, now: Totals) -> dict[str, Any]:
    """A rank's columns that its totals have: means per measured step, and peaks."""

    def gained(name: str) -> Value:
        return difference(now.get(name), start.get(name))

    peaks = {name: now.get(name) for name in PEAKS}
    return {
        **{column: ratio(gained(total), gained("measured_windows")) for column, total in MEANS.items()},
        **{name: None if peak is None else int(peak) for name, peak in peaks.items()},
    }
