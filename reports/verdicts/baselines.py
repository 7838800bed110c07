"""Runs kept as baselines of their machines: a folder for each machine and its versions, with one run's rows."""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path

from bench.errors import UsageError
from bench.record.csvfile import whole_rows, write_whole
from reports.read import trials
from reports.tables.summary import Row, known
from reports.verdicts import compare, report
from reports.verdicts.compare import MACHINE
from reports.verdicts.significance import LEVEL


def renew(run: Path, root: Path, margin: float, accept: bool) -> None:
    """Print how a run differs from the baseline of its machine under `root`, and put it in its place if accepted.

    UsageError: a trial of the run did not end well, or it is of several machines.
    """
    rows = [known(row) for row in trials(run).to_dict("records")]
    folder = root / name(rows, run)
    if (folder / "trials.csv").exists():
        found = compare.compare_runs(folder, run, margin, LEVEL, strict=False)
        with contextlib.suppress(SystemExit):  # rich's way to end where `| head` has seen enough
            report.show(found)
    else:
        print(f"no baseline of this machine yet: {folder}")
    if accept:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(run / "trials.csv", "rb", buffering=0) as raw:
                end = whole_rows(raw)
                raw.seek(0)
                write_whole(folder / "trials.csv", raw.read(end))
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error.strerror}; choose another --to") from error
        print(f"{folder} is the baseline now; compare with: python -m reports compare {folder} RUN")


def name(rows: list[Row], run: Path) -> str:
    """The folder of these rows' machine. UsageError: there is none, there are several, or a trial did not end well."""
    if not rows:
        raise UsageError(f"no trial has ended in {run}; give the --out folder of a run")
    for row in rows:
        if row["status"] != "ok":
            what = f"{row['experiment']} {row['arm']} ended as {row['status']}"
            raise UsageError(f"{what}; a baseline is a run that went well")
    machines = {tuple(str(row[column]) for column in MACHINE if column not in VARYING) for row in rows}
    if len(machines) > 1:
        raise UsageError(f"{run} has rows of {len(machines)} machines or versions; give a run of one")
    device = rows[0]["cpu_model"] if rows[0]["device_name"] == "cpu" else rows[0]["device_name"]
    words = re.sub(r"[^a-z0-9]+", "-", str(device).lower()).strip("-")[:40]
    return f"{words}-{hashlib.sha256(repr(machines).encode()).hexdigest()[:8]}"


# What trials of one run may differ in on one machine, or what somebody may change on it.
VARYING: tuple[str, ...] = ("power_limit_w", "application_sm_clock_hz", "max_sm_clock_hz")
VARYING += ("device_count", "devices", "threads", "backend", "input_pipeline", "parallel", "cuda", "driver")
