"""The launches that a sweep makes to be compared are recorded as such: those of one round, and of one command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from planted_rows import MEASURED

from bench.options import Options
from bench.record.run_folder import RunFolder
from bench.trial import Trial
from launch.run_options import RunOptions
from launch.sweep import matrix
from launch.sweep.runner import Sweep, never

TWO = [Trial(experiment="resnet20_accumulation", arm=arm) for arm in ("16x8", "16x1")]


def rounds(folder: Path, trials: Sequence[Trial], runner_id: str, **how: Any) -> list[str]:
    """The rounds that a sweep of these trials records, in the order of its launches, as if they had ended well."""
    options = RunOptions(**how)
    run = RunFolder(folder)
    ordered = matrix.titled(matrix.repeated(trials, options.repeats, options.order), [])
    context: Any = SimpleNamespace(runner_id=runner_id, options=Options(out=folder), run_options=options, gpus=0)
    display: Any = SimpleNamespace(ended=lambda *_: None)
    sweep = Sweep(list(ordered), context, never, display)
    before = len(run.rows("rounds"))
    for number, (title, trial) in enumerate(ordered):
        row = {**MEASURED, **trial.settings(), "trial_key": trial.key(), "error": None}
        launch: Any = SimpleNamespace(trial=trial, title=title, folder=run, launch_id=f"{runner_id}l{number}")
        launch.finish = lambda cause, row=row: (0, row)
        sweep.waiting.remove((title, trial))
        sweep.running.append(launch)
        sweep.finish_launch(launch)
    return [row["round"] for row in run.rows("rounds")[before:]]


def test_a_round_has_one_launch_of_each_trial_and_no_other_command_s(tmp_path: Path) -> None:
    assert rounds(tmp_path, TWO, "one", repeats=2) == ["one-0", "one-0", "one-1", "one-1"]
    assert rounds(tmp_path, TWO, "two", repeats=2) == ["two-0", "two-0", "two-1", "two-1"]


@pytest.mark.parametrize(
    ("trials", "how"),
    [
        (TWO, {"repeats": 2, "order": "sequential"}),
        (TWO, {"repeats": 2, "parallel": 2}),
        (TWO, {"repeats": 1}),
        (TWO[:1], {"repeats": 2}),
    ],
    ids=["one trial after the other", "side by side", "once", "a single trial"],
)
def test_other_launches_are_of_no_round(trials: list[Trial], how: dict[str, Any], tmp_path: Path) -> None:
    assert rounds(tmp_path, trials, "one", **how) == []
