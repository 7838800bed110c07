"""Runs the plans that were chosen by prediction, under the memory limit that they were made for."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from bench.options import Options
from bench.record.run_folder import RunFolder
from bench.trial import Trial
from launch.group import accelerate_command
from launch.memory.plan import Plan
from launch.run_options import RunOptions
from launch.sweep import runner

# A plan is measured over its warm-up windows and this many more.
MEASURED_WINDOWS = 5
AXES = ["micro_batch", "accumulate", "precision", "checkpoint_activations"]


def measure(plans: Sequence[Plan], options: Options, gpus: int, fields_given: Collection[str]) -> int:
    """Run these plans and put their rows into `Plan.measured`.

    `fields_given`: fields of Trial that the user has set, which are kept. Returned: the exit code, which is 0 too if a
    plan runs out of memory that was predicted not to fit.
    """
    trials = [shortened(plan.trial, fields_given) for plan in plans]
    for trial in trials:
        accelerate_command.check(trial, gpus)
    folder = RunFolder(options.out)
    before = len(folder.rows("trials"))  # an older row of the same trial may be there
    options = dataclasses.replace(options, checkpoint=False)
    code = runner.run_all(trials, options, RunOptions(), gpus, AXES)
    rows = {row["trial_key"]: row for row in folder.rows("trials")[before:]}
    for plan, trial in zip(plans, trials, strict=True):
        plan.measured = rows.get(trial.key(), {})
    as_predicted = all(plan.measured.get("status") == ("oom" if plan.fits == "no" else "ok") for plan in plans)
    return 0 if code == 1 and as_predicted else code


def shortened(trial: Trial, fields_given: Collection[str]) -> Trial:
    """The trial over a few windows, which are enough to see its memory and speed."""
    few: dict[str, Any] = {"epochs": 1, "limit_windows": trial.warmup_windows + MEASURED_WINDOWS}
    return dataclasses.replace(trial, **{field: value for field, value in few.items() if field not in fields_given})
