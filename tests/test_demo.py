"""The demo says what it does, goes on where it was stopped, and takes no row of other code for its own."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT
from launching import Command, is_one_error, python, two_gpus, until

from bench.errors import UsageError
from bench.record.run_folder import RunFolder
from launch.commands import demo

# The demo with two steps of seconds: a network is trained, and carried over.
TINY = """
import sys

from launch.cli import main
from launch.commands import demo
small = "--data digits --image-size 8 --limit-train 64 --limit-eval 40 --epochs 1 --warmup-windows 0 --model resnet8"
demo.STEPS = (
    demo.Step(
        "Which network?", f"resnet20_accumulation --arm 16x1 {small} --classes 0 1 2 3 4", "arm=16x1", folder="backbone"
    ),
    demo.Step(
        "And frozen?",
        f"resnet152_frozen --arm as_published {small} --weights {{weights}} --classes 5 6 7 8 9 --micro-batch 16",
        "experiment=resnet152_frozen",
    ),
)
main(["demo", "--out", sys.argv[1]])
"""


def tiny(out: Path) -> list[str]:
    return ["-c", TINY, str(out)]


def launches(folder: Path) -> list[tuple[str, str]]:
    """(launch, status) of each row."""
    return [(row["launch_id"], row["status"]) for row in RunFolder(folder).rows("trials")]


def test_after_ctrl_c_it_goes_on_and_once_finished_it_trains_nothing(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with Command(tiny(out), tmp_path) as command:
        # Its trial takes a second: who waits for its launcher may come when it has its row.
        until(lambda: "Step 2 of 2" in command.stdout.read_text(), "its second step")
        command.interrupt()
        assert command.wait() == 130
        assert command.stderr.read_text().splitlines()[-1] == demo.STOPPED
        first = command.stdout.read_text()
    assert "2 trials in 2 steps" in first
    assert first.index("Which network?") < first.index("16x1 [") < first.index("And frozen?")
    ((backbone, status),) = launches(out / "backbone")
    assert status == "ok"

    again = python(*tiny(out))
    assert again.returncode == 0, again.stderr
    assert "1 of them have their rows already" in again.stdout
    assert launches(out / "backbone") == [(backbone, "ok")]
    assert [status for _, status in launches(out)][-1] == "ok"
    assert "as_published" in again.stdout.partition("And frozen?")[2]
    for written in ("report.html", "plots", "trials.csv"):
        assert str(out / written) in again.stdout
    assert (out / "report.html").stat().st_size > 0
    assert list((out / "plots").glob("*.png"))

    rows, page = (out / "trials.csv").read_bytes(), (out / "report.html").stat().st_mtime_ns
    finished = python(*tiny(out))
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "is finished: its 2 trials have their rows" in finished.stdout
    assert f"rm -rf {out}" in finished.stdout
    assert "as_published" in finished.stdout
    assert ((out / "trials.csv").read_bytes(), (out / "report.html").stat().st_mtime_ns) == (rows, page)


@pytest.mark.parametrize(("gpus", "processes"), zip(("0", "1", "2", "8"), "2122", strict=True))
def test_it_takes_as_many_processes_as_there_are_gpus_for(
    standin_nvml: Path, gpus: str, processes: str, tmp_path: Path
) -> None:
    env = two_gpus(standin_nvml, STANDIN_NVML=gpus)
    done = python("-m", "launch", "demo", "--dry-run", "--out", str(tmp_path), env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(re.findall(r"--num_processes (\d)", done.stdout)) == {processes}
    assert all(f"step {number} of 6: {step.question}" in done.stdout for number, step in enumerate(demo.STEPS, start=1))
    assert os.listdir(tmp_path) == []


def test_make_runs_it(tmp_path: Path) -> None:
    # A make that is itself started by make says which folder it enters and leaves.
    words = ["make", "-n", "--no-print-directory", "demo", f"BIN={Path(sys.executable).parent}", f"DEMO={tmp_path}"]
    made = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert made.stdout.splitlines()[-1] == f"{sys.executable} -m launch demo --out {tmp_path}"


def test_each_step_s_table_has_its_own_rows_alone(tmp_path: Path) -> None:
    requests = demo.requests_of(tmp_path, 2)
    for step, request in zip(demo.STEPS, requests, strict=True):
        conditions = [condition.split("=") for condition in step.rows.split()]
        found = {
            id(other)
            for other in requests
            for trial in other.trials
            if other.options.out == request.options.out
            and all(str(getattr(trial, name)) == value for name, value in conditions)
        }
        assert found == {id(request)}


def test_the_steps_after_the_backbone_start_from_its_checkpoint(tmp_path: Path) -> None:
    requests = demo.requests_of(tmp_path, 2)
    (backbone,) = (request for request in requests if request.options.out != tmp_path)
    checkpoint = tmp_path / "backbone" / "checkpoints" / f"{backbone.trials[0].key()}-0.pt"
    weights = [{trial.weights for trial in request.trials} for request in requests]
    assert weights == [{"none"}] * 4 + [{str(checkpoint)}] * 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"commit": "0123456789ab"}, "commit (0123456789ab, now "),
        ({"torch": "1.0"}, "torch (1.0, now "),
        ({"bench/worker.py": "0"}, "bench/worker.py changed"),
        ({"bench/worker.py": "0", "models/gone.py": "1"}, "bench/worker.py and 1 more changed"),
        ({"processes": 1}, "processes (1, now 2)"),
    ],
)
def test_rows_of_other_code_are_never_added_to(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    demo.check_code(tmp_path, 2)
    demo.check_code(tmp_path, 2)
    stamp = tmp_path / demo.STAMP
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), **change}))
    before = stamp.read_bytes()
    with pytest.raises(UsageError) as refused:
        demo.check_code(tmp_path, 2)
    assert said in str(refused.value)
    assert f"rm -rf {tmp_path}" in str(refused.value)
    assert stamp.read_bytes() == before


def test_a_run_that_is_none_of_the_demo_s_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text("launch_id\n")
    with pytest.raises(UsageError, match="holds a run that is none of this demo"):
        demo.check_code(tmp_path, 2)
    assert os.listdir(tmp_path) == ["trials.csv"]


def test_a_command_that_removes_names_the_folder_alone(tmp_path: Path) -> None:
    out = tmp_path / "my runs" / "demo"
    demo.check_code(out, 2)
    with pytest.raises(UsageError, match=re.escape(f"rm -rf '{out}', then")):
        demo.check_code(out, 1)


@pytest.mark.parametrize(("out", "said"), [("a,b", "a comma separates"), ("file", "cannot write to --out")])
def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path, out: str, said: str) -> None:
    (tmp_path / "file").write_text("kept")
    done = python("-m", "launch", "demo", "--out", str(tmp_path / out))
    assert is_one_error(done)
    assert said in done.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "kept")]


def test_a_damaged_stamp_is_refused(tmp_path: Path) -> None:
    (tmp_path / demo.STAMP).write_text("{")
    with pytest.raises(UsageError, match=r"cannot read .*demo\.json.*rm -rf"):
        demo.check_code(tmp_path, 2)


@pytest.mark.parametrize(("code", "said"), [(1, "Step 1 did not end well"), (130, demo.STOPPED)])
def test_it_ends_at_a_step_that_does_not_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, said: str
) -> None:
    monkeypatch.setattr(demo.run_command, "run_trials", lambda request: code)
    assert demo.run(argparse.Namespace(out=tmp_path, dry_run=False)) == code
    printed = capsys.readouterr()
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1
    assert "Step 1 of 6" in printed.out
    assert "Step 2 of 6" not in printed.out
    assert "finished" not in printed.out


def test_a_word_that_it_does_not_know_is_one_sentence() -> None:
    done = python("-m", "launch", "demo", "--fast")
    assert is_one_error(done)
    assert "--fast" in done.stderr
