"""What several processes bring: efficiency against one, what a step is made of, and what is shared in it.

Efficiency is throughput / (processes x one process's throughput): of strong scaling where the arm's batch is shared
out, of weak scaling elsewhere. It is derived from rows alone that are alike in all but the number of processes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from bench.record.columns import kept_apart

Row = dict[str, Any]

ALIKE = kept_apart("efficiency")
KNOWN = [*kept_apart("identity"), "micro_batch", "processes"]
MOST_SHARES = 1.1  # of a step
MOST_EFFICIENCY = 1.05


def with_efficiency(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with its `efficiency`; None: one process, or there is no row of one process to compare with.

    That row may be there several times, of which the median counts.
    """
    alone: dict[Hashable, list[float]] = {}
    for row in rows:
        if row["processes"] == 1 and _comparable(row):
            alone.setdefault(_likeness(row), []).append(row["images_per_s"])
    return [{**row, "efficiency": _efficiency(row, alone)} for row in rows]


def _efficiency(row: Row, alone: dict[Hashable, list[float]]) -> float | None:
    if not _comparable(row) or row["processes"] == 1 or _likeness(row) not in alone:
        return None
    return row["images_per_s"] / (row["processes"] * statistics.median(alone[_likeness(row)]))


def _comparable(row: Row) -> bool:
    return bool(row["status"] == "ok" and row["images_per_s"]) and all(row[name] is not None for name in KNOWN)


def _likeness(row: Row) -> Hashable:
    """Equal for rows that only differ in their number of processes."""
    # What the arm says: the micro-batch of each process, or the one that all of them share.
    micro_batch = row["micro_batch"] * (row["processes"] if row["batch_is_shared"] else 1)
    return (micro_batch, *(row[name] for name in ALIKE))


def _share(name: str) -> Callable[[Row], float | None]:
    """A mean time per measured window as a share of the step."""

    def share(row: Row) -> float | None:
        mean, windows, time = row[name], row["measured_windows"], row["measured_time_s"]
        return None if mean is None or windows is None or not time else mean * windows / time

    return share


SHARES = [_share(name) for name in ("compute_s", "exposed_communication_s", "data_wait_s")]


def remarks(row: Row) -> list[str]:
    """What a reader must know before using these columns of the row."""
    found = []
    if row["efficiency"] is not None and row["device_name"] == "cpu":
        found.append("all processes share one CPU's cores: efficiency is what splitting costs, not what hardware adds")
    if (row["efficiency"] or 0.0) > MOST_EFFICIENCY:
        found.append("faster than so many single processes: the one of one process may have been disturbed, repeat it")
    shares = [share(row) for share in SHARES]
    if (row["processes"] or 1) > 1 and sum(share or 0.0 for share in shares) > MOST_SHARES:
        found.append("processes waited for each other: each share is of the one with most of it, and they overlap")
    return found
