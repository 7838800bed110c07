"""Trials that take too long, print too much or fail: each ends by itself, and the sweep goes on."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from conftest import Launch
from launching import TINY, Command, alive, rows, until

from launch.group.trial_launch import LOG_BYTES

RUN = ["-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1", *TINY, "--no-checkpoint"]
MUCH = 2**28


@dataclass
class Swept:
    """What came of a sweep."""

    code: int
    said: str
    trials: list[dict[str, str]]
    logs: list[str]
    left: int


def swept(command: Command, out: Path) -> Swept:
    """Wait for its end."""
    code = command.wait(120)
    trials = rows(out, "trials")
    logs = [(out / row["log"]).read_text(errors="replace") for row in trials]
    return Swept(code, command.stderr.read_text(), trials, logs, len(command.left()))


@dataclass
class Failed:
    """A folder with a trial that diverged and one that did not. `fast`: what was there after --fail-fast."""

    out: Path
    words: list[str]
    fast: list[str]


@pytest.fixture(scope="module")
def failed(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Failed:
    out = tmp_path_factory.mktemp("failed") / "runs"
    words = [*RUN[2:], "--lr", "1e30,0.1", "--epochs", "3", "--out", str(out)]
    assert launch(*words, "--fail-fast").returncode == 1
    found = Failed(out, words, [row["status"] for row in rows(out, "trials")])
    assert launch(*words, "--resume").returncode == 0
    assert [row["status"] for row in rows(out, "trials")] == ["diverged", "ok"]
    return found


def test_fail_fast_begins_no_other_trial(failed: Failed) -> None:
    assert failed.fast == ["diverged"]


@pytest.mark.parametrize(("more", "ran"), [([], []), (["--retry-failed"], ["diverged"])], ids=["resume", "retry"])
def test_what_failed_runs_again_on_request_alone(
    launch: Launch, failed: Failed, more: list[str], ran: list[str]
) -> None:
    before = len(rows(failed.out, "trials"))
    assert launch(*failed.words, "--resume", *more).returncode == bool(ran)
    assert [row["status"] for row in rows(failed.out, "trials")[before:]] == ran


# Planted where Python looks when it starts. At one signal a thread of the rank prints while it trains; at another the
# rank prints far more than a log may hold, and is gone.
FLOODS = f"""
import os, signal, threading
def flood():
    line = b"x" * 65535 + b"\\n"
    for _ in range({MUCH} // 65536):
        os.write(1, line)
def last_words(number, frame):
    words = memoryview(b"the last words\\n" * ({4 * LOG_BYTES} // 15))
    while words:
        words = words[os.write(1, words):]
    os._exit(1)
signal.signal(signal.SIGUSR2, lambda number, frame: threading.Thread(target=flood, daemon=True).start())
signal.signal(signal.SIGURG, last_words)
"""


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A trial prints in its middle, one at its end, before the runner looks again; a third takes longer than it may.

    That one is stopped once it has trained, so that it takes none of the machine's time while its own passes.
    """
    scratch = tmp_path_factory.mktemp("flooded")
    (scratch / "sitecustomize.py").write_text(FLOODS)
    out = scratch / "runs"
    words = [*RUN, "--epochs", "100,100000,100001", "--timeout", "40", "--out", str(out)]
    with Command(words, scratch, {"PYTHONPATH": str(scratch)}) as command:
        rank_of(command, out, 1).send_signal(signal.SIGUSR2)
        rank = rank_of(command, out, 2)
        command.process.send_signal(signal.SIGSTOP)
        rank.send_signal(signal.SIGURG)
        until(lambda: not alive([rank]), "its end")
        command.process.send_signal(signal.SIGCONT)
        rank_of(command, out, 3).suspend()
        return swept(command, out)


def rank_of(command: Command, out: Path, number: int) -> psutil.Process:
    """Rank 0 of the trial of this number, once it trains."""
    until(lambda: len({row["launch_id"] for row in rows(out, "epochs")}) == number, "training to begin")
    rank = command.rank(0)
    assert rank is not None
    return rank


def test_a_rank_that_prints_without_end_leaves_a_log_of_its_ends(flooded: Swept) -> None:
    assert (flooded.trials[0]["status"], flooded.trials[0]["epochs"]) == ("ok", "100"), flooded.said
    assert "bytes were printed here" in flooded.logs[0], "it printed nothing"
    assert flooded.logs[0].startswith("$ ")
    assert len(flooded.logs[0]) < 3 * LOG_BYTES


def test_a_rank_whose_last_words_are_many_leaves_a_short_log_too(flooded: Swept) -> None:
    assert (flooded.trials[1]["status"], flooded.trials[1]["epochs"]) == ("crashed", "100000")
    assert "bytes were printed here" in flooded.logs[1]
    assert flooded.logs[1].endswith("the last words\n")
    assert len(flooded.logs[1]) <= LOG_BYTES


def test_a_trial_over_its_time_ends_as_timeout(flooded: Swept) -> None:
    assert (flooded.trials[2]["status"], flooded.trials[2]["epochs"]) == ("timeout", "100001")
    assert "not done after the 40 s of --timeout" in flooded.trials[2]["error"]
    assert flooded.trials[2]["images_seen"], "what was measured is lost"
    assert (len(flooded.trials), flooded.code, flooded.left) == (3, 1, 0)


def test_a_trial_that_is_given_up_before_it_was_forked_is_not_forked_later(tmp_path: Path) -> None:
    """The imports of the warm process alone take longer than the time limit."""
    out = tmp_path / "runs"
    with Command([*RUN, "--epochs", "2", "--repeats", "3", "--timeout", "1", "--out", str(out)], tmp_path) as command:
        ended = swept(command, out)
    launches = [row["launch_id"] for row in ended.trials]
    assert len(launches) == len(set(launches)) == 3
    assert ended.trials[0]["status"] == "timeout"
    assert (ended.code, ended.left) == (1, 0)
