"""A tracker gets what epochs.csv gets, and a trial with one leaves the rows of a trial without."""

from __future__ import annotations

from pathlib import Path

import pytest
from launching import SMALL, is_one_error, python
from test_reports_export import read_back

from bench.record import RunFolder, columns

TIMED = {column.name for column in columns("trials") if column.unit in ("s", "images/s", "bytes")}
TIMED |= {"launch_id", "started_at", "log", "step_time_cv", "environment"}


def test_tensorboard_gets_the_numbers_of_every_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    words = ["-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1", *SMALL, "--epochs", "2"]
    for name, more in (("with", ["--log-with", "tensorboard"]), ("without", [])):
        done = python(*words, "--no-checkpoint", "--out", str(tmp_path / name), *more)
        assert done.returncode == 0, done.stderr
    first, second = (RunFolder(tmp_path / name).rows("trials")[0] for name in ("with", "without"))
    assert {k: v for k, v in first.items() if k not in TIMED} == {k: v for k, v in second.items() if k not in TIMED}
    (events,) = (tmp_path / "with" / "trackers" / first["launch_id"]).glob("*/events.out.*")
    told = read_back(events.parent)
    epochs = RunFolder(tmp_path / "with").rows("epochs")
    for name in ("train_loss", "eval_accuracy", "images_per_s"):
        assert told[name] == [(n, pytest.approx(float(row[name]), rel=1e-6)) for n, row in enumerate(epochs)]
    assert not (tmp_path / "without" / "trackers").exists()


@pytest.mark.parametrize("name", ["no_such_tracker", "../up", "json.tool"])
def test_what_is_no_tracker_here_is_refused_before_anything_runs(name: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["resnet20_accumulation", "--arm", "16x1", *SMALL, "--out", str(out), "--log-with", name]
    done = python("-m", "launch", "run", *words)
    assert is_one_error(done), done.stderr
    assert f"--log-with is {name!r}, which is not installed here" in done.stderr
    assert not out.exists()


def test_what_accelerate_does_not_know_is_one_sentence(tmp_path: Path) -> None:
    words = ["--arm", "16x1", *SMALL, "--out", str(tmp_path / "run"), "--log-with", "json"]
    done = python("-m", "bench.experiments.resnet20_accumulation", *words, env={"ACCELERATE_USE_CPU": "true"})
    assert done.returncode == 2
    assert "error: --log-with: Unsupported logging capability: json" in done.stderr
