"""Writes a run as TensorBoard's event files."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from bench.errors import UsageError
from bench.record.columns import columns
from bench.record.settings import settings_columns
from reports import read
from reports.merge import LAUNCH_ID
from reports.tables import summary
from reports.tables.summary import Row

Add = Callable[[Mapping[str, float], int], None]

POSITION = ("epoch", "window")
EPOCH_SCALARS = [c.name for c in columns("epochs") if c.type in ("int", "float") and c.name not in POSITION]
STEP_SCALARS = [c.name for c in columns("steps") if c.type in ("int", "float") and c.name not in POSITION]
LARGEST = 2**128  # TensorBoard's numbers are floats of 32 bits
LAST = 2**31  # no training has an epoch or step of this number


def write(folder: Path, out: Path) -> int:
    """Write the epochs and measured steps of each launch, and return the number of launches.

    Raises UsageError if no run wrote the folder, if `out` cannot be written or if TensorBoard is not installed.
    """
    trials, epochs, steps = read.all_that_can_be(folder, [*POSITION, *STEP_SCALARS])
    by_epoch, by_step = dict(list(epochs.groupby("launch_id"))), dict(list(steps.groupby("launch_id")))
    rows = [summary.row_of(row) for row in trials.to_dict("records")]
    varying = [c.name for c in settings_columns() if len({row[c.name] for row in rows}) > 1]
    trained = [row for row in rows if row["launch_id"] in {*by_epoch, *by_step}]
    try:
        for row in trained:
            with writer(out / log_name(row), wall_time(row)) as (add, add_settings):
                add_settings({name: row[name] for name in varying if row[name] is not None}, row["launch_id"])
                write_epochs(add, by_epoch.get(row["launch_id"], epochs[:0]))
                write_steps(add, by_step.get(row["launch_id"], steps[:0]))
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}; choose another -o") from error
    return len(trained)


def log_name(row: Row) -> str:
    """A folder's name: what was launched, and the launch id, so that no two launches share it."""
    words = (str(row[name]) for name in ("experiment", "arm", "precision", "processes", "repeat"))
    name = re.sub(r"[^\w.-]", "_", "_".join(words), flags=re.ASCII)[:150].lstrip(".")
    launch = str(row["launch_id"])
    return f"{name}_{launch if LAUNCH_ID.fullmatch(launch) else hashlib.sha256(launch.encode()).hexdigest()[:12]}"


def wall_time(row: Row) -> float:
    """When the launch began, in seconds since 1970: epochs and steps have no time of their own."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return datetime.datetime.fromisoformat(row["started_at"]).timestamp()
    return 0.0


def write_epochs(add: Add, epochs: pd.DataFrame) -> None:
    """Add all numbers of a launch's epochs."""
    for record in epochs.to_dict("records"):
        row = summary.row_of(record)
        if row["epoch"] is not None:
            add({name: row[name] for name in EPOCH_SCALARS if row[name] is not None}, row["epoch"])


def write_steps(add: Add, steps: pd.DataFrame) -> None:
    """Add all numbers of a launch's measured steps, numbered through the whole training."""
    numbered = steps[steps["epoch"].between(0, LAST) & steps["window"].between(0, LAST)]
    number = numbered["epoch"] * (numbered["window"].max() + 1) + numbered["window"]
    tags = [f"steps/{name}" for name in STEP_SCALARS]
    for step, values in zip(number, numbered[STEP_SCALARS].itertuples(index=False), strict=True):
        add({tag: value for tag, value in zip(tags, values, strict=True) if value == value}, int(step))


@contextlib.contextmanager
def writer(folder: Path, began: float) -> Iterator[tuple[Add, Callable[[Row, str], None]]]:
    """Functions that add scalars, and a launch's settings, to the one event file in a folder.

    Raises UsageError if TensorBoard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise UsageError("tensorboard needs TensorBoard; pip install -e '.[tensorboard]'") from error
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    events = EventFileWriter(str(folder))

    def add(numbers: Mapping[str, float], step: int) -> None:
        values = [
            Summary.Value(tag=name, simple_value=value) for name, value in numbers.items() if abs(value) < LARGEST
        ]
        events.add_event(Event(wall_time=began, step=step, summary=Summary(value=values)))

    def add_settings(settings: Row, launch: str) -> None:
        if settings:
            events.add_event(Event(wall_time=began, summary=hparams_pb(settings, launch, began)))

    try:
        yield add, add_settings
    finally:
        events.close()
