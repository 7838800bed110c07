"""What do several processes gain? Their efficiency against one process, and the parts of a step.

Efficiency = throughput / (processes x throughput of one process). If the arm's batch is shared out to the processes,
this is strong scaling, else weak scaling. Both rows have to be equal in all but the number of processes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Sequence

from bench.record.columns import kept_apart
from reports.tables.summary import Row
from reports.typed import UNREADABLE

ALIKE = kept_apart("efficiency")
KNOWN = [*kept_apart("identity"), "micro_batch", "processes"]
MOST_SHARES = 1.1  # of a step; each share is the maximum over ranks, so that a sum over 1 means that ranks wait
MOST_EFFICIENCY = 1.05  # above it the row of one process is doubted: noise, or another program on the machine


def with_efficiency(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with its `efficiency`; None for one process, and if there is no equal row of one process.

    If there are several rows of one process, their median counts.
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
    good = row["status"] == "ok" and row["images_per_s"] and row[UNREADABLE] is None
    return bool(good) and all(row[name] is not None for name in KNOWN)


def _likeness(row: Row) -> Hashable:
    """A key that is equal for rows that differ only in their number of processes."""
    # What the arm says: the micro-batch of each process, or the one that all of them share.
    micro_batch = row["micro_batch"] * (row["processes"] if row["batch_is_shared"] else 1)
    return (micro_batch, *(row[name] for name in ALIKE))


def _share(name: str) -> Callable[[Row], float | None]:
    """A function from a row to a mean time per measured step, as a share of the step."""

    def share(row: Row) -> float | None:
        mean, windows, time = row[name], row["measured_windows"], row["measured_time_s"]
        return None if mean is None or windows is None or not time else mean * windows / time

    return share


SHARES = [_share(name) for name in ("compute_s", "exposed_communication_s", "data_wait_s")]


def remarks(row: Row) -> list[str]:
    """Warnings about these figures of the row."""
    found = []
    if row["efficiency"] is not None and row["device_name"] == "cpu":
        found.append("all processes share one CPU's cores: efficiency is what splitting costs, not what hardware adds")
    if (row["efficiency"] or 0.0) > MOST_EFFICIENCY:
        found.append("faster than so many single processes: the row of one process may have been disturbed, repeat it")
    shares = [share(row) for share in SHARES]
    if (row["processes"] or 1) > 1 and sum(share or 0.0 for share in shares) > MOST_SHARES:
        found.append("processes waited for each other: each share is of the one with most of it, and they overlap")
    return found + slow_rank(row)


def slow_rank(row: Row) -> list[str]:
    """The rank that the others wait for, if one stands apart: bench/record/rank_columns.py has the rule."""
    rank, excess, where = row["slowest_rank"], row["slowest_rank_excess"], row["slowest_rank_device"]
    if rank is None or excess is None:
        return []
    took = f"rank {rank} (host {where or 'unknown'}) took {1 + excess:.2f} times as long as"
    if row["processes"] == 2:
        return [f"{took} rank {1 - rank}, which waits for it; of two ranks, no majority says which is the odd one"]
    return [f"{took} the median of the other ranks, which wait for it"]
