"""The runner, its guard and its warm process are killed; a folder has one runner at a time."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from conftest import Launch
from launching import TINY, Command, alive, delete, is_one_error, named, rows, until

from bench.errors import UsageError
from bench.record.run_folder import RunFolder
from launch.group import folder_lock

RUN = ["-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1", *TINY]
SOON_S = 60.0


def whole(folder: Path) -> bool:
    """Whether every line of every CSV file is a whole row."""
    for path in folder.glob("*.csv"):
        text = path.read_text()
        if not text.endswith("\n") or len({len(row) for row in csv.reader(text.splitlines())}) != 1:
            return False
    return True


def under_way(out: Path, number: int) -> None:
    """Wait until the trial of this number trains."""

    def trains() -> bool:
        ended = {row["launch_id"] for row in rows(out, "trials")}
        return len(ended) == number - 1 and any(row["launch_id"] not in ended for row in rows(out, "epochs"))

    until(trains, f"trial {number} to train")


def process(command: Command, name: str) -> psutil.Process:
    """The living process of this command with this name."""
    found = until(lambda: [p for p in command.left() if named(p) == name], name)
    return found[0]


def guard(command: Command) -> psutil.Process:
    """The command's guard."""
    return until(lambda: [p for p in command.left() if is_guard(p)], "the guard")[0]


def is_guard(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "launch.group.watchdog" in process.cmdline()
    return False


def scratch_of(command: Command) -> Path:
    """The runner's folder for what nobody needs afterwards, which its guard knows."""
    return Path(guard(command).cmdline()[-1])


# The runner


@dataclass
class Killed:
    """What a killed runner left, and what --resume makes of it, warm after either."""

    left: list[psutil.Process]
    scratch: bool
    before: list[dict[str, str]]
    whole: bool
    code: int
    after: list[dict[str, str]]


def finder(command: Command) -> Callable[[], list[psutil.Process]]:
    """What finds those that are left of the command's processes."""
    group, everyone = command.group(), command.left()
    sessions = {os.getsid(p.pid) for p in group}
    groups = {os.getpgid(p.pid) for p in group}

    def left() -> list[psutil.Process]:
        # One that is just dying has no environment any more, and is there.
        kin = [p for p in psutil.process_iter() if session(p.pid) in sessions or process_group(p.pid) in groups]
        return [*command.left(), *alive(everyone), *alive(kin)]

    return left


@pytest.fixture(scope="module")
def cold(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """In its first trial, since each takes a quarter of a minute to start."""
    scratch = tmp_path_factory.mktemp("cold")
    out = scratch / "runs"
    words = [*RUN, "--processes", "2", "--out", str(out)]
    with Command([*words, "--epochs", "100000,3", "--cold"], scratch) as command:
        under_way(out, 1)
        left, leftover = finder(command), scratch_of(command)
        command.process.kill()
        command.wait()
        until(lambda: not left(), "the end of all", SOON_S)
        found = left()
    before, is_whole = rows(out, "trials"), whole(out)
    code = launch(*words[2:], "--epochs", "4,3", "--resume").returncode
    return Killed(found, leftover.exists(), before, is_whole and whole(out), code, rows(out, "trials"))


@dataclass
class Runners:
    """What came of a runner, of a second that came while the first ran, and of a third that came when it was killed."""

    first: int
    refused: subprocess.CompletedProcess[str]
    killed: Killed
    code: int
    left: list[psutil.Process]


@pytest.fixture(scope="module")
def runners(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Runners:
    """The first one is killed in its second trial; its guard is stopped, so that it holds the folder until it goes on.

    The third trains then, gets three signals at once, and its guard is stopped by that time.
    """
    scratch = tmp_path_factory.mktemp("runners")
    out = scratch / "runs"
    words = [*RUN, "--processes", "2", "--out", str(out), "--epochs"]
    with Command([*words, "2,100000"], scratch) as first, contextlib.ExitStack() as stack:
        under_way(out, 2)
        refused = launch(*RUN[2:], "--out", str(out))
        epochs = len(rows(out, "epochs"))
        until(lambda: len(rows(out, "epochs")) > epochs, "the first to go on")
        left, leftover, keeper = finder(first), scratch_of(first), guard(first)
        keeper.suspend()
        first.process.kill()
        first.wait()
        third = stack.enter_context(Command([*words, "2,100000", "--resume"], scratch))
        runner = psutil.Process(third.process.pid)
        until(lambda: any(file.path.endswith(".runner") for file in runner.open_files()), "the third to wait")
        assert third.process.poll() is None
        assert first.group()
        before = rows(out, "trials")
        runner.suspend()  # it would clean up what the guard leaves
        keeper.resume()
        until(lambda: not alive([keeper]), "the guard's end", SOON_S)
        found = left()
        runner.resume()
        until(lambda: len({row["launch_id"] for row in rows(out, "epochs")}) == 3, "the third to train")
        guard(third).suspend()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            third.process.send_signal(number)
        stopped = third.wait()
        left_by_third = third.left()
    code = launch(*words[2:], "2,4,3", "--resume").returncode
    killed = Killed(found, leftover.exists(), before, whole(out), code, rows(out, "trials"))
    return Runners(first.process.pid, refused, killed, stopped, left_by_third)


@pytest.fixture(scope="module")
def warm(runners: Runners) -> Killed:
    return runners.killed


@pytest.fixture(scope="module", params=["warm", "cold"])
def killed(request: pytest.FixtureRequest) -> Killed:
    found: Killed = request.getfixturevalue(request.param)
    return found


def session(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return None


def process_group(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getpgid(pid)
    return None


def test_of_a_killed_runner_no_process_is_left(killed: Killed) -> None:
    assert killed.left == []
    assert not killed.scratch


def test_what_a_killed_runner_wrote_is_whole_and_the_rest_is_run_by_resume(killed: Killed) -> None:
    assert killed.whole
    assert killed.code == 0
    assert [row["epochs"] for row in killed.after[-2:]] == ["4", "3"]
    done = [*killed.before, *killed.after[-2:]]
    assert done == [row for row in killed.after if row["status"] == "ok"]


def test_a_trial_that_ended_before_its_runner_was_killed_is_not_run_again(runners: Runners) -> None:
    assert [row["epochs"] for row in runners.killed.before] == ["2"]
    assert [row["epochs"] for row in runners.killed.after] == ["2", "100000", "4", "3"]


def test_a_second_runner_is_refused_by_the_name_of_the_first(runners: Runners) -> None:
    assert is_one_error(runners.refused), runners.refused.stderr
    assert f"runs is in use by process {runners.first} on {os.uname().nodename} since " in runners.refused.stderr
    assert "--epochs 2,100000" in runners.refused.stderr


def test_who_comes_while_a_killed_runner_is_cleaned_up_waits_and_then_works(runners: Runners) -> None:
    """As its own trial shows, of which there is a row; the first one's trial was ended before."""
    (row,) = [row for row in runners.killed.after if row["epochs"] == "100000"]
    assert row["status"] == "interrupted"


def test_a_second_signal_behind_the_first_costs_no_row(runners: Runners) -> None:
    assert runners.code == 130
    (row,) = [row for row in runners.killed.after if row["status"] == "interrupted"]
    assert row["images_seen"]


def test_a_guard_that_is_stopped_holds_nothing_up(runners: Runners) -> None:
    assert runners.left == []


# Those that serve it, and its folder


@dataclass
class Served:
    """What came of a command that lost, one after the other, all that serves it."""

    code: int
    said: list[str]
    trials: list[dict[str, str]]
    left: list[psutil.Process]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """In the first trial the guard is killed and then the warm process, the next warm process behind the second trial.

    The next is stopped in the fourth, and in the fifth the folder is deleted.
    """
    scratch = tmp_path_factory.mktemp("served")
    out = scratch / "runs"
    with Command([*RUN, "--no-checkpoint", "--epochs", "100000,2,3,100,100001", "--out", str(out)], scratch) as command:
        under_way(out, 1)
        first = guard(command)
        first.kill()
        until(lambda: guard(command).pid != first.pid, "another guard")
        group = command.group()
        process(command, "resbench warm").kill()
        until(lambda: rows(out, "trials"), "the first trial's row", SOON_S)
        until(lambda: not alive(group), "the group's end", SOON_S)
        until(lambda: len(rows(out, "trials")) >= 2, "the second trial's row")
        process(command, "resbench warm").kill()
        until(lambda: len(rows(out, "trials")) >= 3, "the third trial's row")
        warm = process(command, "resbench warm")
        under_way(out, 4)
        warm.suspend()
        under_way(out, 5)
        assert not alive([warm])
        trials = rows(out, "trials")
        delete(out)
        code, said = command.wait(), command.stderr.read_text().splitlines()
        assert not (out / "trials.csv").exists()
        return Served(code, said, trials, command.left())


def test_a_killed_guard_is_replaced_and_a_killed_warm_process_too(served: Served) -> None:
    """The first trial is crashed by the loss of the process that its launcher came from; the second has a new one."""
    crashed, after = served.trials[:2]
    assert (crashed["epochs"], crashed["status"]) == ("100000", "crashed")
    assert (after["epochs"], after["status"]) == ("2", "ok")
    assert "the process that forks trials has ended" in crashed["error"]


def test_a_warm_process_that_is_gone_between_trials_is_started_again(served: Served) -> None:
    """It costs no more than the trial that was just to be forked."""
    assert [row["epochs"] for row in served.trials] == ["100000", "2", "3", "100"]
    assert served.trials[2]["status"] in ("ok", "crashed")
    assert served.trials[3]["status"] == "ok"


def test_a_warm_process_that_is_stopped_costs_no_trial_its_row(served: Served) -> None:
    """The one under way ends without it, and the next is forked off another: it trains until its folder is deleted."""
    assert (served.trials[3]["epochs"], served.trials[3]["status"]) == ("100", "ok")


def test_a_folder_that_is_deleted_underneath_ends_the_sweep_in_a_sentence(served: Served) -> None:
    assert served.code == 2
    assert served.said[-1].startswith("error: ")
    assert "was deleted or moved" in served.said[-1]
    assert "Traceback" not in "\n".join(served.said)


def test_whatever_was_lost_nothing_is_left(served: Served) -> None:
    assert served.left == []


def test_a_folder_that_is_gone_before_it_is_claimed_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*gone"), folder_lock.claim(RunFolder(tmp_path / "gone"), "me"):
        pass
