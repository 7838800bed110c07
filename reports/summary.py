"""A trial's launches as one row: medians, with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.record import columns, settings_columns

Row = dict[str, Any]

SETTINGS = [column.name for column in settings_columns() if column.name != "repeat"]
# Launches that differ in one of these are not of one trial, or not on one machine.
ALIKE = [*SETTINGS, "status", "commit", "host", "device_name", "device_count", "cpu_model", "cpu_count", "threads"]
ALIKE += ["power_mode", "driver", "cuda", "torch", "torchvision", "accelerate", "backend", "input_pipeline", "parallel"]
MEASURED = [c.name for c in columns("trials") if c.type in ("int", "float") and c.name not in (*ALIKE, "repeat")]


def known(row: Mapping[Any, Any]) -> Row:
    """The row with None for what is missing, which is not equal to anything else and does not raise."""
    return {name: None if pd.isna(value) else value for name, value in row.items()}


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
    medians = {name: statistics.median(found) for name, found in values.items() if found}
    spread = {name: (min(found), max(found)) for name, found in values.items() if len(found) > 1}
    repeat = each[0]["repeat"] if len(each) == 1 else None
    return {**each[0], **medians, "repeat": repeat, "spread": spread, "each": list(each)}


def rank(row: Row) -> tuple[bool, bool, float]:
    """Fastest first; what has no throughput after that, what did not end well last."""
    speed = row["images_per_s"]
    return (row["status"] != "ok", speed is None, -(speed or 0.0))
