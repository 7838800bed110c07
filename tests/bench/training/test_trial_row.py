"""A trial's row while it trains: the copy from which the launcher writes it if the trial is killed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import pytest

from bench.experiment import Experiment
from bench.record.run_folder import RunFolder
from bench.training import trial_row
from bench.training.meter import Meter
from bench.training.trial_row import TrialRow
from bench.trial import Trial
from bench.variables import LAUNCH_ID


class SlowToRead:
    """A meter whose figures take their time, as a save on a busy disk does."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s, self.measured_windows = takes_s, 0

    def trial(self) -> dict[str, Any]:
        time.sleep(self.takes_s)
        return {"measured_windows": self.measured_windows}

    def ranks(self) -> list[dict[str, Any]]:
        return []


def row_of(folder: Path, meter: SlowToRead, monkeypatch: pytest.MonkeyPatch) -> TrialRow:
    monkeypatch.setenv(LAUNCH_ID, "id")
    row = TrialRow(Trial(), Experiment("", Trial(), {"": {}}), "id", RunFolder(folder), 0)
    row.meter = cast(Meter, meter)
    row.copy.parent.mkdir()
    return row


def test_a_save_that_was_held_up_does_not_put_off_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of the time alone would put it off for 20 s here, and for minutes after a save of seconds."""
    row = row_of(tmp_path, SlowToRead(0.2), monkeypatch)
    row.save()
    assert row.copy.is_file()
    assert row.save_after_s <= time.monotonic() + trial_row.SAVE_WITHIN_S


def test_the_copy_is_not_saved_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = SlowToRead(0)
    row = row_of(tmp_path, meter, monkeypatch)
    row.save()
    meter.measured_windows = 5
    row.save()
    assert json.loads(row.copy.read_text())["measured_windows"] == 0
    row.save_after_s = time.monotonic()
    row.save()
    assert json.loads(row.copy.read_text())["measured_windows"] == 5
