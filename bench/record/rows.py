"""The cells of a trial's row that are known before it starts. Imports no torch."""

from __future__ import annotations

import datetime
from typing import Any

from bench.experiment import Experiment, Published, departures
from bench.machine import environment
from bench.record.columns import PARTS
from bench.record.experiment_lookup import changed
from bench.trial import Trial
from models.names import is_timm

BEGAN = "began_monotonic_s"
"""In the copy of a row, beside its columns: time.monotonic() at started_at, which a machine's processes share."""


def time_stamp() -> str:
    """The wall clock (UTC, ISO 8601): it tells when, and never how long, because it may be set."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


def first_row(trial: Trial, experiment: Experiment, launch_id: str) -> dict[str, Any]:
    """The row of a trial that has not started; one that never starts leaves it as it is."""
    published = experiment.published.get(trial.arm, Published())
    own = bool(trial.experiment_file)  # of others, `reports` has the file
    return {
        "launch_id": launch_id,
        "trial_key": trial.key(),
        "started_at": time_stamp(),
        **trial.settings(),
        "effective_batch": trial.effective_batch(),
        "stop_accuracy": trial.stop_accuracy(),
        "question": experiment.question if own else None,
        "arm_settings": " ".join(sorted(changed(experiment))) if own else None,
        "batch_is_shared": trial.arm in experiment.shared_batch,
        **{f"published_{part}_accuracy": getattr(published, f"{part}_accuracy") for part in PARTS},
        "published_epoch_time_s": published.epoch_time_s,
        "published_where": published.where or None,
        "published_differs": differs(trial, experiment) if trial.arm in experiment.published else None,
        **environment.machine(),
        "timm": environment.version("timm") if is_timm(trial.model) else None,
        "log": f"logs/{launch_id}.log",
    }


def differs(trial: Trial, experiment: Experiment) -> str:
    """Why what is published for the trial's arm is no measure of it; empty: it is."""
    changed = departures(trial, experiment.trial(trial.experiment, trial.arm))
    return ", ".join(filter(None, (changed, experiment.published[trial.arm].unlike)))
