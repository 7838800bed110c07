"""A tracker gets what epochs.csv gets, and a trial with one leaves the rows of a trial without."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from accelerate.utils import ProjectConfiguration
from conftest import Launch
from event_files import read_back
from launching import SMALL, is_one_error, python

from bench.errors import UsageError
from bench.record.columns import columns
from bench.record.experiment_trackers import NAMES, ExperimentTrackers, check
from bench.record.run_folder import RunFolder
from bench.trial import Trial

TIMED = {column.name for column in columns("trials") if column.unit in ("s", "images/s", "bytes")}
TIMED |= {"launch_id", "started_at", "log", "step_time_cv", "environment"}


def test_tensorboard_gets_the_numbers_of_every_epoch(launch: Launch, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    words = ["run", "resnet20_accumulation", "--arm", "16x1", *SMALL, "--epochs", "2"]
    for name, more in (("with", ["--log-with", "tensorboard"]), ("without", [])):
        done = launch(*words, "--no-checkpoint", "--out", str(tmp_path / name), *more)
        assert done.returncode == 0, done.stderr
    first, second = (RunFolder(tmp_path / name).rows("trials")[0] for name in ("with", "without"))
    assert {k: v for k, v in first.items() if k not in TIMED} == {k: v for k, v in second.items() if k not in TIMED}
    (events,) = (tmp_path / "with" / "trackers" / first["launch_id"]).glob("*/events.out.*")
    told = read_back(events.parent)
    epochs = RunFolder(tmp_path / "with").rows("epochs")
    for name in ("train_loss", "eval_accuracy", "images_per_s"):
        assert told[name] == [(n, pytest.approx(float(row[name]), rel=1e-6)) for n, row in enumerate(epochs)]
    assert "epoch" not in told
    kept = int(first["base_rss_bytes"]) - int(second["base_rss_bytes"])
    assert kept > 2**21, "what TensorBoard keeps, some MiB, is there before the trial's memory is counted"
    assert not (tmp_path / "without" / "trackers").exists()


@pytest.mark.parametrize("name", ["no_such_tracker", "../up", "json", "all"])
def test_what_is_no_tracker_is_refused_before_anything_runs(name: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["resnet20_accumulation", "--arm", "16x1", *SMALL, "--out", str(out), "--log-with", name]
    done = python("-m", "launch", "run", *words)
    assert is_one_error(done), done.stderr
    assert f"--log-with is {name!r}; choose from: aim, " in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_not_installed_is_said_whatever_folders_there_are(
    folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("dvclive"):
        pytest.skip("dvclive is installed here")
    if folder:
        (tmp_path / "dvclive").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="'dvclive', which is not installed here; try: pip install dvclive"):
        check(["dvclive"])


def test_every_tracker_of_accelerate_can_be_chosen() -> None:
    from accelerate.utils import LoggerType

    assert {str(each) for each in LoggerType} - {"all"} <= set(NAMES)


class Failing:
    """An Accelerator with a tracker that loses its service."""

    def __init__(self, fails: str) -> None:
        self.fails, self.told = fails, 0
        self.project_configuration = ProjectConfiguration()

    def init_trackers(self, name: str, config: dict[str, Any]) -> None:
        if self.fails == "begin":
            raise ConnectionError("no\nnetwork")

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.told += 1
        raise ConnectionError("no\nnetwork")

    def end_training(self) -> None:
        raise ConnectionError("no\nnetwork")


def test_a_tracker_that_fails_costs_no_trial_and_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    for words in (["tell", "tell", "end"], ["end"]):
        failing: Any = Failing("later")
        trackers = ExperimentTrackers(["tensorboard"], failing, tmp_path, "launch")
        trackers.begin(Trial())
        for word in words:
            trackers.log({"epoch": 0, "train_loss": 1.0}, 0) if word == "tell" else trackers.end()
        assert failing.told == (words[0] == "tell")
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("the trial goes on without: ConnectionError: no network")


def test_a_tracker_that_cannot_begin_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    failing: Any = Failing("begin")
    with pytest.raises(UsageError, match="a tracker cannot begin: ConnectionError: no network"):
        ExperimentTrackers(["tensorboard"], failing, tmp_path, "launch").begin(Trial())


def test_what_accelerate_does_not_find_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a package that is only half there, which Accelerate leaves out in silence."""
    monkeypatch.setattr("accelerate.tracking.filter_trackers", lambda names, folder: [])
    failing: Any = Failing("never")
    with pytest.raises(UsageError, match="Accelerate finds no dvclive here"):
        ExperimentTrackers(["dvclive"], failing, tmp_path, "launch")
