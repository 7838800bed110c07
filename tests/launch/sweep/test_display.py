"""What a user sees of a sweep: bars and time left on a terminal, plain lines elsewhere, and at the end what failed."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CHECKOUT
from launching import TINY, Command, on_a_terminal, python, rows, until

from bench.trial import Trial
from launch.run_options import RunOptions
from launch.sweep import display, runner
from launch.sweep.estimate import Estimator

SHOW = """
import time
from launch.sweep.display import Display
state = {"epochs": 2, "windows": 5}
one, two = "[1/3] exp 16x1 weights=a[/b].pt", "[2/3] exp 16x2"
with Display(3) as display:
    display.show(one, {})
    display.show(one, {**state, "epoch": 0, "window": 3, "images_per_s": 12345.6, "train_loss": 2.5})
    display.show(two, {})
    time.sleep(0.3)
    display.ended(one, "ok, [red]100 images/s[/red]", 1, 754.0)
    display.show(two, {**state, "epoch": 1, "window": 0, "images_per_s": 9.876, "train_loss": 0.25})
    time.sleep(0.3)
    display.ended(two, "crashed: why", 2, None)
    display.ended("[3/3] exp 16x3", "has its row already", 3, None)
    display.line("the last line")
"""
SHOW_ONE = """
from bench.record.progress import Display
with Display("t") as display:
    for epoch in range(3):
        display.show({"epochs": 3, "windows": 5, "epoch": epoch, "window": 0})
    display.line("the last line")
"""
LINES = [
    "[1/3] exp 16x1 weights=a[/b].pt: ok, [red]100 images/s[/red]",
    "[2/3] exp 16x2: crashed: why",
    "[3/3] exp 16x3: has its row already",
    "the last line",
]


def test_in_a_pipe_there_is_a_plain_line_for_a_trial_with_the_time_left() -> None:
    done = python("-c", SHOW)
    assert done.stderr.splitlines() == [f"{LINES[0]} (about 13 min left)", *LINES[1:]]
    assert {unicodedata.category(character) for character in done.stderr if character != "\n"} & {"Cc", "Cf"} == set()


def test_on_a_terminal_there_are_bars_for_each_trial_and_for_all() -> None:
    text = on_a_terminal(SHOW)
    assert "\x1b[" in text
    assert "━" in text
    for part in ("3 trials", "starting", "epoch 1/2", "epoch 2/2", "12346 images/s", "9.876 images/s", "loss 0.250"):
        assert part in text
    assert "about 13 min left" in text
    for line in LINES:
        assert f"{line}\r\n" in text


def test_of_a_long_trial_a_pipe_is_told_at_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a clock of our own: a line comes with an epoch's end, LINE_S after the last at the earliest."""
    now = [0.0]
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with display.Display(1) as shown:
        shown.show("t", {})
        for seconds, epoch in ((10, 1), (29, 2), (31, 3), (45, 3), (62, 3), (63, 4), (64, 5)):
            now[0] = float(seconds)
            shown.show("t", {"epoch": epoch, "epochs": 9, "window": 1, "windows": 5})
    assert capsys.readouterr().err.splitlines() == ["t: 3 of 9 epochs", "t: 4 of 9 epochs"]


# Whoever watches may go


@pytest.mark.parametrize("code", [SHOW, SHOW_ONE], ids=["sweep", "trial"])
@pytest.mark.parametrize("where", ["pipe", "terminal", "nowhere"])
def test_when_nobody_is_left_to_show_it_to_what_runs_goes_on(code: str, where: str) -> None:
    inside, outside = pty.openpty() if where == "terminal" else os.pipe()
    os.close(inside)
    close = (lambda: os.close(2)) if where == "nowhere" else None
    code += "\nprint('went on')"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=outside, preexec_fn=close
    )
    os.close(outside)
    said, _ = process.communicate()
    assert (process.returncode, said) == (0, b"went on\n")


RUN = ["-m", "launch", "run", "resnet20_accumulation"]
BY_HAND = ["-m", "bench.experiments.resnet20_accumulation"]


def closed(
    start: Sequence[str], epochs: str, ignored: Sequence[int], scratch: Path
) -> tuple[int, list[dict[str, str]]]:
    """The exit code and the rows of what trains at a terminal that closes in the middle."""
    out = scratch / "runs"
    words = [*start, "--arm", "16x1", *TINY, "--no-checkpoint", "--epochs", epochs, "--out", str(out)]
    inside, outside = pty.openpty()
    os.set_blocking(inside, False)

    def began() -> bool:  # read on, or the command waits for that
        with contextlib.suppress(BlockingIOError):
            os.read(inside, 65536)
        return bool(rows(out, "epochs"))

    with Command(words, scratch, {"TERM": "xterm"}, ignored, terminal=outside) as command:
        os.close(outside)
        until(began, "training to begin")
        os.close(inside)
        code = command.wait()
        assert command.left() == []
    return code, rows(out, "trials")


@pytest.mark.parametrize("start", [RUN, BY_HAND], ids=["sweep", "trial"])
def test_a_terminal_that_closes_interrupts_what_runs_at_it(start: list[str], tmp_path: Path) -> None:
    code, (row,) = closed(start, "100000", [], tmp_path)
    assert (code, row["status"]) == (130, "interrupted")
    assert "SIGHUP" in row["error"]


def test_under_nohup_a_terminal_that_closes_stops_nothing(tmp_path: Path) -> None:
    code, trials = closed(RUN, "30,2", [signal.SIGHUP], tmp_path)
    assert (code, [row["status"] for row in trials]) == (0, ["ok", "ok"])


# Time left and the summary


class Said:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.left: list[float | None] = []

    def ended(self, title: str, line: str, done: int, left_s: float | None) -> None:
        self.left.append(left_s)

    def line(self, text: str) -> None:
        self.lines.append(text)


def sweep(tmp_path: Path, waiting: Sequence[Trial], parallel: int = 1) -> tuple[Any, Said]:
    """A sweep of these trials, of which none is begun."""
    context: Any = SimpleNamespace(
        options=SimpleNamespace(out=tmp_path, resume=False), run_options=RunOptions(parallel=parallel), gpus=0
    )
    said: Any = Said()
    return runner.Sweep([(f"[{n}]", trial) for n, trial in enumerate(waiting, 1)], context, runner.never, said), said


def row(status: str, error: str = "", **more: Any) -> dict[str, Any]:
    return {"status": status, "error": error, **more}


def of(trial: Trial, seconds: float) -> dict[str, Any]:
    return {**trial.settings(), "trial_key": trial.key(), "status": "ok", "error": None, "duration_s": seconds}


def test_time_left_is_learnt_from_the_trials_that_have_ended(tmp_path: Path) -> None:
    """What is not known of takes as long as the others' mean; two trials side by side take half."""
    ten, twenty, unlike = Trial(epochs=10), Trial(epochs=20), Trial(epochs=10, micro_batch=77)
    for parallel, left_s in ((1, 450.0), (2, 225.0)):
        found, _ = sweep(tmp_path, [ten, twenty, unlike], parallel)
        assert found.remaining_s() is None
        found.estimator.add(of(Trial(epochs=1), 10.0))
        assert found.remaining_s() == left_s
    found.waiting.clear()
    assert found.remaining_s() is None
    assert isinstance(found.estimator, Estimator)


def test_the_summary_names_what_failed_and_why_and_alike_once(tmp_path: Path) -> None:
    found, said = sweep(tmp_path, [Trial()] * 6)
    found.ended = [
        ("[1] a", 0, row("ok")),
        ("[2] b", 1, row("crashed", "RuntimeError: x (y) (logs/11.log)")),
        ("[3] c", 1, row("timeout", "no progress (logs/22.log)")),
        ("[4] d", 1, row("crashed", "RuntimeError: x (y) (logs/33.log)")),
        ("[5] e", 0, row("over_limit", "predicted to need 9 GiB")),
        ("[6] f", 1, row("timeout", "RuntimeError: x (y) (logs/44.log)")),
    ]
    found.print_failures()
    assert said.lines == [
        "5 of 6 trials did not end well:",
        "  crashed: [2] b and 1 more: RuntimeError: x (y)",
        "  timeout: [3] c: no progress",
        "  over_limit: [5] e: predicted to need 9 GiB",
        "  timeout: [6] f: RuntimeError: x (y)",
    ]


def test_there_is_no_summary_of_what_ended_well(tmp_path: Path) -> None:
    found, said = sweep(tmp_path, [Trial()] * 2)
    found.ended = [("a", 0, row("ok")), ("b", 0, row("ok"))]
    found.print_failures()
    assert said.lines == []


@pytest.mark.parametrize(("codes", "code"), [([], 0), ([0, 0], 0), ([0, 1, 0], 1), ([1, 2], 2), ([1, 130], 130)])
def test_the_exit_code_is_the_worst(tmp_path: Path, codes: list[int], code: int) -> None:
    found, _ = sweep(tmp_path, [])
    found.ended = [("a", number, row("ok")) for number in codes]
    assert found.exit_code() == code
