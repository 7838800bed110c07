"""Baselines: for each machine and its versions a folder that holds the rows of one run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from bench.called import as_called
from bench.errors import UsageError
from bench.record.columns import kept_apart
from bench.record.csvfile import end_of_rows, write_whole
from reports.read import trials
from reports.tables.summary import Row, row_of
from reports.verdicts import compare, likeness, report
from reports.verdicts.significance import LEVEL

MACHINE = kept_apart("baseline")


def renew(run: Path, root: Path, margin: float, accept: bool) -> None:
    """Print how a run differs from its machine's baseline under `root`; with `accept`, make it the baseline.

    Raises UsageError if a trial of the run did not end well or if the run is of several machines.
    """
    rows = rows_of(run)
    check(rows, run)
    folder = find(rows, root)
    if (folder / "trials.csv").exists():
        found = compare.compare_runs(folder, run, margin, LEVEL, strict=False)
        report.show(found)
    else:
        print(f"no baseline of this machine yet: {folder}")
    if accept:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(run / "trials.csv", "rb", buffering=0) as raw:
                end = end_of_rows(raw)
                raw.seek(0)
                write_whole(folder / "trials.csv", raw.read(end))
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error.strerror}; choose another --to") from error
        print(as_called(f"{folder} is the baseline now; compare with: python -m reports compare {folder} RUN"))


def rows_of(folder: Path) -> list[Row]:
    """The rows of trials.csv in this folder."""
    return [row_of(record) for record in trials(folder).to_dict("records")]


def check(rows: Sequence[Row], run: Path) -> None:
    """Raises UsageError if a run is no baseline: no trial, one that did not end well, several machines."""
    if not rows:
        raise UsageError(f"no trial has ended in {run}; give the --out folder of a run")
    for row in rows:
        if row["status"] != "ok":
            what = f"{row['experiment']} {row['arm']} ended as {row['status']}"
            raise UsageError(f"{what}; a baseline is a run that went well")
    for name in likeness.unlike(rows, MACHINE):
        several = likeness.listed(likeness.values(rows, name))
        raise UsageError(f"{run} has rows of several machines or versions: {name} {several}; give a run of one")


def find(rows: Sequence[Row], root: Path) -> Path:
    """The baseline folder of these rows' machine: the one that is there, or the one to make.

    A folder is found by its rows, not by its name: an older version may have written it, which knew less of the machine
    and made another name of it. Of several folders, the one that knows most of the machine is taken.
    """
    fitting = []
    for path in sorted(root.glob("*/trials.csv")):
        kept = rows_of(path.parent)
        if kept and not likeness.unidentified([*rows, *kept]) and not likeness.unlike([*rows, *kept], MACHINE):
            fitting.append((sum(bool(likeness.values(kept, name)) for name in MACHINE), path.parent))
    return max(fitting)[1] if fitting else root / new_name(rows)


def new_name(rows: Sequence[Row]) -> str:
    """The device, and a hash of all that makes it this machine."""
    machine = [(name, *map(str, likeness.values(rows, name))) for name in MACHINE]
    device = rows[0]["cpu_model"] if rows[0]["device_name"] == "cpu" else rows[0]["device_name"]
    words = re.sub(r"[^a-z0-9]+", "-", str(device).lower()).strip("-")[:40]
    return f"{words}-{hashlib.sha256(repr(machine).encode()).hexdigest()[:8]}"
