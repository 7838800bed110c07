"""The row that the launcher writes for a trial that wrote none: how long it took, by a clock that nobody sets."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from bench.experiment import Experiment
from bench.failure.causes import Cause
from bench.record.rows import BEGAN, first_row
from bench.record.run_folder import RunFolder
from bench.training.trial_row import TrialRow
from bench.trial import Trial
from bench.variables import LAUNCH_DETAILS, LAUNCH_ID
from launch.group import missing_row

TRIAL = Trial(experiment="resnet20_accumulation", arm="16x1")
EXPERIMENT = Experiment("", Trial(), {"16x1": {}})
# The clock was set back by a day since the trial began: by it, the trial will begin tomorrow.
TOMORROW = "2126-01-01T00:00:00.000+00:00"


def written(folder: Path) -> dict[str, str]:
    """The row of a trial that began ten seconds ago, as the launcher knows it."""
    run = RunFolder(folder)
    run.logs().mkdir(parents=True, exist_ok=True)
    before = {**first_row(TRIAL, EXPERIMENT, "id"), "started_at": TOMORROW, BEGAN: time.monotonic() - 10}
    missing_row.write_failed(run, before, Cause("crashed", "it was killed"), Path("id.log"))
    (row,) = run.rows("trials")
    return row


def test_a_trial_that_ended_before_it_set_up_took_as_long_as_its_launch(tmp_path: Path) -> None:
    row = written(tmp_path)
    assert (row["started_at"], row["error"]) == (TOMORROW, "it was killed (logs/id.log)")
    assert 10 <= float(row["duration_s"]) < 60


def test_a_trial_that_had_set_up_took_the_time_since_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0, whose copy this is, began an hour ago by the clock that both processes share."""
    monkeypatch.setenv(LAUNCH_ID, "id")
    row = TrialRow(TRIAL, EXPERIMENT, "id", RunFolder(tmp_path), 0)
    row.values["started_at"] = TOMORROW
    row.began_s -= 3600
    row.copy.parent.mkdir(parents=True)
    row.save()
    assert 3600 <= float(written(tmp_path)["duration_s"]) < 3660
    assert BEGAN not in (tmp_path / "trials.csv").read_text()
    assert set(json.loads(row.copy.read_text())) > {BEGAN, "started_at"}


def test_the_way_to_the_group_is_timed_by_the_launchers_monotonic_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LAUNCH_DETAILS, json.dumps({"requested_s": time.monotonic() - 5}))
    monkeypatch.setattr(time, "time", lambda: 0.0)  # set back, by decades
    row = TrialRow(TRIAL, EXPERIMENT, "id", RunFolder(tmp_path), 0)
    row.group_formed()
    assert 5 <= row.values["startup_s"] < 60
