"""A trial's launches as one row: medians, with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.record.columns import columns, default_settings, kept_apart

Row = dict[str, Any]

SETTINGS = kept_apart("trial")
# Launches that differ in one of these are not put together into one median.
ALIKE = ["status", *kept_apart("median")]
GPU_MEMORY = "peak_allocated_bytes"
DEFAULTS = default_settings()
MEASURED = [c.name for c in columns("trials") if c.type in ("int", "float") and c.name not in (*ALIKE, "repeat")]


def known(row: Mapping[Any, Any]) -> Row:
    """The row with None for what is missing, which does not raise as NA does.

    A setting that an older version had no column for it did as is the default now: it tells no trials apart. But for
    tf32, which float32's convolutions then had on GPUs since Ampere, and its products had not: neither value is true.
    """
    found = {name: None if pd.isna(value) else value for name, value in row.items()}
    on_cuda = found.get("cuda") is not None
    if found.get("trial_key") is not None:
        found |= {
            name: value
            for name, value in DEFAULTS.items()
            if name in found and found[name] is None and not (name == "tf32" and on_cuda and found["precision"] == "no")
        }
    return found


def summarised(rows: Sequence[Row]) -> list[Row]:
    """A row for each trial, best first: its launches that ended well in one, those that did not each in its own.

    Numbers are medians over the launches that have them. `spread` has the lowest and highest of each, where there are
    several, and `each` the launches.
    """
    groups: dict[Hashable, list[Row]] = {}
    for place, row in enumerate(rows):
        own = () if row["status"] == "ok" else (place,)
        groups.setdefault((*(row[name] for name in ALIKE), *own), []).append(row)
    return sorted(map(one, groups.values()), key=rank)


def one(each: Sequence[Row]) -> Row:
    """These launches of one trial as one row."""
    values = {name: [row[name] for row in each if row[name] is not None] for name in MEASURED}
    medians = {name: median(found) for name, found in values.items() if found}
    spread = {name: (min(found), max(found)) for name, found in values.items() if len(found) > 1}
    return {**each[0], **medians, "repeat": None, "spread": spread, "each": list(each)}


def median(values: Sequence[float]) -> float:
    """Of whole numbers a whole one, where it is."""
    found = statistics.median(values)
    return int(found) if isinstance(values[0], int) and found == int(found) else found


def rank(row: Row) -> tuple[bool, bool, float]:
    """Fastest first; what has no throughput after that, what did not end well last."""
    speed = row["images_per_s"]
    return (row["status"] != "ok", speed is None, -(speed or 0.0))


def titles(rows: Sequence[Row], without: Sequence[str] = ()) -> Callable[[Row], str]:
    """What to call each of these rows in little room: its arm, and what tells it from the arm's others."""
    arms = {row["arm"] for row in rows}
    varying = [
        name
        for name in (*SETTINGS, "commit")
        if name not in without and any(len({row[name] for row in rows if row["arm"] == arm}) > 1 for arm in arms)
    ]
    mixed = {row["arm"] for row in rows if len({r["micro_batch"] for r in rows if r["arm"] == row["arm"]}) > 1}
    if "processes" in varying and all(row["batch_is_shared"] for row in rows if row["arm"] in mixed):
        varying = [name for name in varying if name != "micro_batch"]  # which the processes tell
    varying += telling(rows, ["arm", *varying, *without])
    return lambda row: " ".join([str(row["arm"]), *(in_words(name, row[name]) for name in varying)])


def telling(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """What tells rows of different trials apart that are equal in all of these names, such as a version."""
    equal: dict[Hashable, list[Row]] = {}
    for row in rows:
        equal.setdefault(tuple(row[name] for name in names), []).append(row)
    others = [name for name in ALIKE if name not in (*names, "status")]
    return [name for name in others if any(len({row[name] for row in each}) > 1 for each in equal.values())]


def in_words(name: str, value: Any) -> str:
    """A setting as one would say it."""
    if name == "precision":
        return "fp32" if value == "no" else str(value)
    if name == "processes":
        return f"{value} process{'' if value == 1 else 'es'}"
    return f"{name}={value}"


def memory_column(rows: Sequence[Row]) -> str:
    """The memory that rows are compared by: that of tensors on GPUs, else that of processes."""
    return GPU_MEMORY if any(row[GPU_MEMORY] for row in rows) else "peak_rss_bytes"
