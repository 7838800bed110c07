"""Rows as TensorBoard's event files."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from bench.record import UsageError, columns
from reports import read, summary

SCALARS = [column.name for column in columns("epochs") if column.type in ("int", "float") and column.name != "epoch"]


def write(folder: Path, out: Path) -> int:
    """Write the epochs of each launch, and return how many launches that are.

    UsageError: the folder is no run, `out` cannot be written, or TensorBoard is not installed.
    """
    trials, (epochs, _) = read.trials(folder), read.epochs(folder)
    rows = [summary.known(row) for row in trials.to_dict("records")]
    rows = [row for row in rows if (epochs["launch_id"] == row["launch_id"]).any()]
    try:
        for row in rows:
            with writer(out / log_name(row), wall_time(row)) as add:
                write_launch(add, epochs[epochs["launch_id"] == row["launch_id"]])
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}; choose another -o") from error
    return len(rows)


def log_name(row: dict[str, Any]) -> str:
    """A folder's name that says what was launched, and has no two launches in one."""
    words = "_".join(str(row[name]) for name in ("experiment", "arm", "precision", "processes", "repeat", "launch_id"))
    return re.sub(r"[^\w.-]", "_", words, flags=re.ASCII)[:200].lstrip(".")


def wall_time(row: dict[str, Any]) -> float:
    """When the launch began; epochs have no time of their own."""
    with contextlib.suppress(TypeError, ValueError):
        return datetime.datetime.fromisoformat(row["started_at"]).timestamp()
    return 0.0


def write_launch(add: Callable[[str, float, int], None], epochs: pd.DataFrame) -> None:
    """All numbers of its epochs."""
    for record in epochs.to_dict("records"):
        row = summary.known(record)
        for name in SCALARS:
            if row[name] is not None and row["epoch"] is not None:
                add(name, float(row[name]), int(row["epoch"]))


@contextlib.contextmanager
def writer(folder: Path, began: float) -> Iterator[Callable[[str, float, int], None]]:
    """Adds scalars to the only event file in a folder. UsageError: TensorBoard is not installed."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise UsageError("tensorboard needs TensorBoard; pip install -e '.[tensorboard]'") from error
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    events = EventFileWriter(str(folder))

    def add(name: str, value: float, step: int) -> None:
        found = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        events.add_event(Event(wall_time=began, step=step, summary=found))

    try:
        yield add
    finally:
        events.close()
