"""Summarises a trial's launches in one row: medians, with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.record.columns import columns, kept_apart
from bench.record.settings import default_settings
from reports.typed import UNREADABLE

Row = dict[str, Any]

SETTINGS = kept_apart("trial")
# Launches that differ in one of these are not put together into one median.
ALIKE = ["status", UNREADABLE, *kept_apart("median")]
GPU_MEMORY = "peak_allocated_bytes"
DEFAULTS = default_settings()
MEASURED = [c.name for c in columns("trials") if c.type in ("int", "float") and c.name not in (*ALIKE, "repeat")]


def row_of(record: Mapping[Any, Any]) -> Row:
    """The row with None for what is missing; pandas' NA raises an error wherever it is compared.

    A setting that an older version did not have gets its default: that version did what is the default now. tf32 is an
    exception. On GPUs from Ampere on, float32 convolutions used TF32 by default and matrix products did not, so that
    neither True nor False is what ran, and it stays None. A row with a cell that cannot be read gets no default.
    """
    found = {name: None if pd.isna(value) else value for name, value in record.items()}
    found.setdefault(UNREADABLE, None)
    on_cuda = found.get("cuda") is not None
    if found.get("trial_key") is not None and found[UNREADABLE] is None:
        found |= {
            name: value
            for name, value in DEFAULTS.items()
            if name in found and found[name] is None and not (name == "tf32" and on_cuda and found["precision"] == "no")
        }
    return found


def summarised(rows: Sequence[Row]) -> list[Row]:
    """A row for each trial, fastest first. A launch that did not end well has a row of its own.

    Numbers are medians over the launches that have them. `spread` has the lowest and highest of each column that has
    several values, `each` has the launches.
    """
    groups: dict[Hashable, list[Row]] = {}
    for number, row in enumerate(rows):
        own = () if row["status"] == "ok" else (number,)
        groups.setdefault((*(row[name] for name in ALIKE), *own), []).append(row)
    return sorted(map(one, groups.values()), key=rank)


def one(each: Sequence[Row]) -> Row:
    """These launches of one trial as one row."""
    values = {name: [row[name] for row in each if row[name] is not None] for name in MEASURED}
    medians = {name: median(found) for name, found in values.items() if found}
    spread = {name: (min(found), max(found)) for name, found in values.items() if len(found) > 1}
    return {**each[0], **medians, "repeat": None, "spread": spread, "each": list(each)}


def median(values: Sequence[float]) -> float:
    """The median; of integers an integer, if it is one."""
    middle = statistics.median(values)
    return int(middle) if isinstance(values[0], int) and middle == int(middle) else middle


def rank(row: Row) -> tuple[bool, bool, float]:
    """Sorts rows: fastest first, then those without a throughput, then those that did not end well."""
    speed = row["images_per_s"]
    return (row["status"] != "ok", speed is None, -(speed or 0.0))


def titles(rows: Sequence[Row], without: Sequence[str] = ()) -> Callable[[Row], str]:
    """A function from a row to its short name: the arm, and the settings in which rows of that arm differ."""
    arms = {row["arm"] for row in rows}
    varying = [
        name
        for name in (*SETTINGS, "commit")
        if name not in without and any(len({row[name] for row in rows if row["arm"] == arm}) > 1 for arm in arms)
    ]
    mixed = {row["arm"] for row in rows if len({r["micro_batch"] for r in rows if r["arm"] == row["arm"]}) > 1}
    if "processes" in varying and all(row["batch_is_shared"] for row in rows if row["arm"] in mixed):
        varying = [name for name in varying if name != "micro_batch"]  # it follows from the processes
    varying += telling(rows, ["arm", *varying, *without])
    return lambda row: " ".join([str(row["arm"]), *(in_words(name, row[name]) for name in varying)])


def telling(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """The columns, such as a version, in which rows differ that are equal in all of these names."""
    equal: dict[Hashable, list[Row]] = {}
    for row in rows:
        equal.setdefault(tuple(row[name] for name in names), []).append(row)
    others = [name for name in ALIKE if name not in (*names, "status")]
    return [name for name in others if any(len({row[name] for row in each}) > 1 for each in equal.values())]


def in_words(name: str, value: Any) -> str:
    """A setting as a reader says it: fp32, 2 processes, lr=0.1."""
    if name == "precision":
        return "fp32" if value == "no" else str(value)
    if name == "processes":
        return f"{value} process{'' if value == 1 else 'es'}"
    return f"{name}={value}"


def memory_column(rows: Sequence[Row]) -> str:
    """The column that memory is compared by: that of tensors on GPUs, else that of processes."""
    return GPU_MEMORY if any(row[GPU_MEMORY] for row in rows) else "peak_rss_bytes"
