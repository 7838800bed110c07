"""Trials that go on no more, take too long, print too much or fail: each ends by itself, and the sweep goes on."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

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


@pytest.fixture(scope="module")
def hung(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Of two processes one is stopped in the middle, so that the other waits for it; then a trial that is well."""
    scratch = tmp_path_factory.mktemp("hung")
    out = scratch / "runs"
    words = [*RUN, "--processes", "2", "--epochs", "100000,2", "--stall-timeout", "15", "--out", str(out)]
    with Command(words, scratch) as command:
        until(lambda: rows(out, "epochs"), "training to begin")
        rank = command.rank(1)
        assert rank is not None
        rank.suspend()
        return swept(command, out)


def test_a_hung_collective_ends_as_timeout(hung: Swept) -> None:
    assert (hung.trials[0]["status"], hung.trials[0]["epochs"]) == ("timeout", "100000")
    assert "no progress for the 15 s of --stall-timeout" in hung.trials[0]["error"]


def test_its_log_says_where_the_ranks_were(hung: Swept) -> None:
    _, _, stack = hung.logs[0].partition("rank 0, process ")
    assert "(most recent call first)" in stack
    assert "in run_rank" in stack


def test_the_next_trial_runs_and_nothing_is_left(hung: Swept) -> None:
    assert (hung.trials[1]["status"], hung.code, hung.left) == ("ok", 1, 0)
    assert "1 of 2 trials did not end well" in hung.said
    assert "  timeout: [1/2] resnet20_accumulation 16x1 epochs=100000: no progress" in hung.said


def test_a_trial_over_its_time_ends_as_timeout_and_fail_fast_begins_no_other(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    words = [*RUN, "--epochs", "100000,2", "--timeout", "20", "--fail-fast", "--out", str(out)]
    with Command(words, tmp_path) as command:
        ended = swept(command, out)
    assert [row["status"] for row in ended.trials] == ["timeout"]
    assert "not done after the 20 s of --timeout" in ended.trials[0]["error"]
    assert ended.trials[0]["images_seen"], "what was measured is lost"
    assert (ended.code, ended.left) == (1, 0)


@pytest.fixture(scope="module")
def failed(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trial that diverged and one that did not."""
    out = tmp_path_factory.mktemp("failed") / "runs"
    assert launch(*RUN[2:], "--lr", "1e30,0.1", "--epochs", "3", "--out", str(out)).returncode == 1
    assert [row["status"] for row in rows(out, "trials")] == ["diverged", "ok"]
    return out


@pytest.mark.parametrize(("more", "ran"), [([], []), (["--retry-failed"], ["diverged"])], ids=["resume", "retry"])
def test_what_failed_runs_again_on_request_alone(launch: Launch, failed: Path, more: list[str], ran: list[str]) -> None:
    before = len(rows(failed, "trials"))
    words = [*RUN[2:], "--lr", "1e30,0.1", "--epochs", "3", "--resume", *more, "--out", str(failed)]
    assert launch(*words).returncode == bool(ran)
    assert [row["status"] for row in rows(failed, "trials")[before:]] == ran


def test_a_rank_that_prints_without_end_leaves_a_log_of_its_ends(tmp_path: Path) -> None:
    """Planted where Python looks when it starts: a thread of rank 0 prints once it trains."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, threading, time
def flood():
    while not os.environ.get("RESBENCH_PROGRESS") or open("/proc/self/comm").read() != "rank 0\\n":
        time.sleep(0.1)
    line = b"x" * 65535 + b"\\n"
    for _ in range({MUCH} // 65536):
        os.write(1, line)
    os.write(1, b"the last word\\n")
threading.Thread(target=flood, daemon=True).start()
""")
    out = tmp_path / "runs"
    with Command(
        [*RUN, "--epochs", "50", "--cold", "--out", str(out)], tmp_path, {"PYTHONPATH": str(tmp_path)}
    ) as command:
        ended = swept(command, out)
    assert [row["status"] for row in ended.trials] == ["ok"], ended.said
    assert "bytes were printed here" in ended.logs[0], "it printed nothing"
    assert ended.logs[0].startswith("$ ")
    assert len(ended.logs[0]) < 3 * LOG_BYTES
    assert (ended.code, ended.left) == (0, 0)


def test_a_rank_whose_last_words_are_many_leaves_a_short_log_too(tmp_path: Path) -> None:
    """Told by a signal, rank 0 prints far more than a log may hold, and is gone before the runner looks."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, signal
def flood(number, frame):
    words = memoryview(b"the last words\\n" * ({4 * LOG_BYTES} // 15))
    while words:
        words = words[os.write(1, words):]
    os._exit(1)
signal.signal(signal.SIGUSR2, flood)
""")
    out = tmp_path / "runs"
    words = [*RUN, "--epochs", "100000", "--out", str(out)]
    with Command(words, tmp_path, {"PYTHONPATH": str(tmp_path)}) as command:
        until(lambda: rows(out, "steps"), "training to begin")
        rank = command.rank(0)
        assert rank is not None
        command.process.send_signal(signal.SIGSTOP)
        rank.send_signal(signal.SIGUSR2)
        until(lambda: not alive([rank]), "its end")
        command.process.send_signal(signal.SIGCONT)
        ended = swept(command, out)
    assert [row["status"] for row in ended.trials] == ["crashed"]
    assert "bytes were printed here" in ended.logs[0]
    assert ended.logs[0].endswith("the last words\n")
    assert len(ended.logs[0]) <= LOG_BYTES


def test_a_trial_that_is_given_up_before_it_was_forked_is_not_forked_later(tmp_path: Path) -> None:
    """The imports of the warm process alone take longer than the time limit."""
    out = tmp_path / "runs"
    with Command([*RUN, "--epochs", "2", "--repeats", "3", "--timeout", "1", "--out", str(out)], tmp_path) as command:
        ended = swept(command, out)
    launches = [row["launch_id"] for row in ended.trials]
    assert len(launches) == len(set(launches)) == 3
    assert ended.trials[0]["status"] == "timeout"
    assert (ended.code, ended.left) == (1, 0)
