"""The row of a trial that rank 0 did not write: rank 0 was killed, or the trial was never started."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from bench import experiments
from bench.failure.causes import Cause
from bench.record import progress, to_target
from bench.record.rows import BEGAN, first_row
from bench.record.run_folder import RunFolder, shortage
from bench.trial import Trial


def written(folder: RunFolder, launch_id: str) -> dict[str, Any] | None:
    """The row that rank 0 has written; None if it did not."""
    return next((dict(row) for row in folder.rows("trials") if row["launch_id"] == launch_id), None)


def before_start(trial: Trial, launch_id: str, started_by: str | None, parallel: int) -> dict[str, Any]:
    """The columns that are known before a trial starts: its settings, and how it is started."""
    row = first_row(trial, experiments.of(trial), launch_id)
    return {**row, "started_by": started_by, "parallel": parallel}


def write_failed(folder: RunFolder, row: dict[str, Any], cause: Cause, log: Path) -> dict[str, Any]:
    """Write the row of a trial that ended without one, and return it.

    `row`: what is known before the start, BEGAN too. Rank 0 leaves LAUNCH_ID.row.json with all columns that it knows
    once it has set up (machine, parameters, start time); they replace `row`.
    """
    with contextlib.suppress(OSError, ValueError):  # the trial ended before rank 0 had set up
        row = json.loads((folder.logs() / f"{row['launch_id']}.row.json").read_text(encoding="utf-8"))
    duration_s = time.monotonic() - row.pop(BEGAN)
    row |= {**cause.columns(), "error": f"{cause.error} (logs/{log.name})"}
    row |= {"duration_s": round(duration_s, 3)}
    folder.append("trials", [row])
    return row


def write_over_limit(folder: RunFolder, row: dict[str, Any], reason: str) -> dict[str, Any]:
    """Write the row of a trial that is not started because it is predicted not to fit its limit, and return it."""
    row = {**row, "status": "over_limit", "error": reason, "log": None, "started_by": None}
    folder.append("trials", [row])
    return row


def summary(row: dict[str, Any]) -> str:
    """A trial's row as one line: ok, 1234 images/s, evaluation accuracy 0.912."""
    if row["status"] != "ok":
        return f"{row['status']}{shortage(row)}: {row['error']}"
    parts = ["ok"]
    if row.get("images_per_s"):
        parts.append(progress.rate(float(row["images_per_s"])))
    if row.get("eval_accuracy"):
        parts.append(f"evaluation accuracy {float(row['eval_accuracy']):.3f}")
    if towards := to_target.in_words(row):
        parts.append(towards)
    return ", ".join(parts)
