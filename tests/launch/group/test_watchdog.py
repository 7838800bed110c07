"""The runner, its guard and its warm process are killed; a folder has one runner at a time."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Launch
from launching import TINY, Command, alive, delete, named, python, rows, until

from bench.errors import UsageError
from bench.record.run_folder import RunFolder
from launch.group import folder_lock

RUN = ["-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1", *TINY]
# Epochs without end, of a few hundredths of a second.
ENDLESS = ["--epochs", "100000"]
SOON_S = 60.0


def whole(folder: Path) -> bool:
    """Whether every line of every CSV file is a whole row."""
    for path in folder.glob("*.csv"):
        text = path.read_text()
        if not text.endswith("\n") or len({len(row) for row in csv.reader(text.splitlines())}) != 1:
            return False
    return True


def is_training(out: Path, trials: int = 1) -> bool:
    """Whether so many trials have begun to train."""
    return len({row["launch_id"] for row in rows(out, "epochs")}) >= trials


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


@pytest.fixture(scope="module", params=[[], ["--cold"]], ids=["warm", "cold"])
def killed(request: pytest.FixtureRequest, launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sweep whose runner is killed in its second trial, and what --resume, warm after either, makes of it."""
    scratch = tmp_path_factory.mktemp("killed")
    out = scratch / "runs"
    words = [*RUN, "--processes", "2", "--out", str(out)]
    with Command([*words, "--epochs", "2,100000,3", *request.param], scratch) as command:
        until(lambda: is_training(out, 2), "the second trial")
        group, leftover = command.group(), scratch_of(command)
        sessions = {os.getsid(p.pid) for p in group}
        groups = {os.getpgid(p.pid) for p in group}
        everyone = command.left()
        command.process.kill()
        command.wait()
        # One that is just dying has no environment any more, and is there.
        until(lambda: not command.left() and not alive(everyone), "the end of all", SOON_S)
        found: dict[str, Any] = {
            "left": command.left(),
            "in session": [p for p in alive(list(psutil.process_iter())) if session(p.pid) in sessions],
            "in group": [p for p in alive(list(psutil.process_iter())) if process_group(p.pid) in groups],
            "scratch": leftover.exists(),
            "rows": rows(out, "trials"),
            "whole": whole(out),
        }
    code = launch(*words[2:], "--epochs", "2,4,3", "--resume").returncode
    return {**found, "code": code, "after": rows(out, "trials"), "whole after": whole(out)}


def session(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return None


def process_group(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getpgid(pid)
    return None


def test_of_a_killed_runner_no_process_is_left(killed: dict[str, Any]) -> None:
    assert killed["left"] == killed["in session"] == killed["in group"] == []
    assert not killed["scratch"]


def test_what_a_killed_runner_wrote_is_whole_and_the_rest_is_run_by_resume(killed: dict[str, Any]) -> None:
    assert [row["epochs"] for row in killed["rows"]] == ["2"]
    assert killed["whole"]
    assert killed["whole after"]
    assert killed["code"] == 0
    assert [(row["epochs"], row["status"]) for row in killed["after"]] == [("2", "ok"), ("4", "ok"), ("3", "ok")]


# Those that serve it


def test_a_killed_guard_is_replaced_and_a_killed_warm_process_too(tmp_path: Path) -> None:
    """The first trial is crashed by the loss of the process that its launcher came from; the second has a new one."""
    out = tmp_path / "runs"
    with Command([*RUN, "--epochs", "100000,2", "--out", str(out)], tmp_path) as command:
        until(lambda: is_training(out), "training to begin")
        first = guard(command)
        first.kill()
        until(lambda: guard(command).pid != first.pid, "another guard")
        group = command.group()
        process(command, "resbench warm").kill()
        until(lambda: rows(out, "trials"), "the trial's row", SOON_S)
        until(lambda: not alive(group), "the group's end", SOON_S)
        assert command.wait() == 1
        assert command.left() == []
    crashed, after = rows(out, "trials")
    assert (crashed["status"], after["status"]) == ("crashed", "ok")
    assert "the process that forks trials has ended" in crashed["error"]


def test_a_warm_process_that_is_gone_between_trials_is_started_again(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    with Command([*RUN, "--epochs", "2", "--seed", "0,1,2", "--out", str(out)], tmp_path) as command:
        until(lambda: rows(out, "trials"), "the first trial's row")
        process(command, "resbench warm").kill()
        command.wait()
        assert command.left() == []
    statuses = [row["status"] for row in rows(out, "trials")]
    assert len(statuses) == 3
    assert statuses.count("ok") >= 2


def test_a_warm_process_that_is_stopped_costs_no_trial_its_row(tmp_path: Path) -> None:
    """The one under way ends without it, and the next is forked off another."""
    out = tmp_path / "runs"
    words = [*RUN, "--epochs", "100,2", "--no-checkpoint", "--stall-timeout", "60", "--out", str(out)]
    with Command(words, tmp_path) as command:
        until(lambda: is_training(out), "training to begin")
        warm = process(command, "resbench warm")
        warm.suspend()
        assert command.wait() == 0
        assert not alive([warm])
        assert command.left() == []
    assert [(row["epochs"], row["status"]) for row in rows(out, "trials")] == [("100", "ok"), ("2", "ok")]


# One runner a folder


def test_a_second_runner_is_refused_by_the_name_of_the_first(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    with Command([*RUN, *ENDLESS, "--out", str(out)], tmp_path) as command:
        until(lambda: is_training(out), "training to begin")
        done = python(*RUN, "--out", str(out))
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert f"{out} is in use by process {command.process.pid} on {os.uname().nodename} since " in line
        assert "--epochs 100000" in line
        command.interrupt()
        assert command.wait() == 130
    assert [row["status"] for row in rows(out, "trials")] == ["interrupted"]


def test_who_comes_while_a_killed_runner_is_cleaned_up_waits_and_then_works(tmp_path: Path) -> None:
    """The guard is stopped, so that it holds the folder until it goes on."""
    out = tmp_path / "runs"
    with Command([*RUN, *ENDLESS, "--no-checkpoint", "--out", str(out)], tmp_path) as command:
        until(lambda: is_training(out), "training to begin")
        keeper = guard(command)
        keeper.suspend()
        command.process.kill()
        command.wait()
        with Command([*RUN, "--out", str(out)], tmp_path) as second:
            runner = psutil.Process(second.process.pid)
            until(lambda: any(file.path.endswith(".runner") for file in runner.open_files()), "the second to wait")
            assert second.process.poll() is None
            keeper.send_signal(signal.SIGCONT)
            assert second.wait() == 0
            assert second.left() == []
        assert command.left() == []
    assert [row["status"] for row in rows(out, "trials")] == ["ok"]


def test_a_folder_that_is_deleted_underneath_ends_the_sweep_in_a_sentence(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    with Command([*RUN, "--epochs", "100000,2", "--no-checkpoint", "--out", str(out)], tmp_path) as command:
        until(lambda: is_training(out), "training to begin")
        delete(out)
        assert command.wait() == 2
        assert command.left() == []
        said = command.stderr.read_text().splitlines()
    assert said[-1].startswith("error: ")
    assert "was deleted or moved" in said[-1]
    assert "Traceback" not in "\n".join(said)
    assert not (out / "trials.csv").exists()


def test_a_folder_that_is_gone_before_it_is_claimed_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*gone"), folder_lock.claim(RunFolder(tmp_path / "gone"), "me"):
        pass


def test_a_second_signal_behind_the_first_costs_no_row(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    with Command([*RUN, *ENDLESS, "--no-checkpoint", "--out", str(out)], tmp_path) as command:
        until(lambda: is_training(out), "training to begin")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            command.process.send_signal(number)
        assert command.wait() == 130
        assert command.left() == []
    (row,) = rows(out, "trials")
    assert row["status"] == "interrupted"
    assert row["images_seen"]


def test_a_guard_that_is_stopped_holds_nothing_up(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    with Command([*RUN, "--epochs", "100", "--no-checkpoint", "--out", str(out)], tmp_path) as command:
        until(lambda: is_training(out), "training to begin")
        guard(command).suspend()
        assert command.wait() == 0
        assert command.left() == []
