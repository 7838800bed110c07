"""A run folder is held by one runner at a time, as long as that or what cleans up behind it is there, and no longer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from conftest import CHECKOUT, Launch

from bench.errors import UsageError
from bench.options import Options
from bench.record.run_folder import RunFolder
from bench.variables import RUNNER_ID
from launch.group import folder_lock
from launch.group.run_context import RunContext
from launch.run_options import RunOptions

HOLD = """
import sys, time
from pathlib import Path
from bench.record.run_folder import RunFolder
from launch.group import folder_lock
with folder_lock.claim(RunFolder(Path(sys.argv[1])), sys.argv[3], int(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path / "runs")
    found.prepare()
    return found


@contextlib.contextmanager
def holder(folder: RunFolder, machine: int = 0, runner_id: str = "other") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder."""
    words = [sys.executable, "-c", HOLD, str(folder.path), str(machine), runner_id]
    with subprocess.Popen(words, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def as_it_lies(folder: RunFolder) -> dict[str, tuple[int, bytes]]:
    """All that is in the folder."""
    files = [path for path in folder.path.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def refusal(folder: RunFolder, machine: int = 0) -> str:
    with pytest.raises(UsageError) as caught, folder_lock.claim(folder, "me", machine):
        pass
    return str(caught.value)


def test_who_is_refused_is_told_by_whom_and_has_changed_nothing(folder: RunFolder) -> None:
    folder.append("trials", [{"arm": "one"}])
    with holder(folder) as process:
        before = as_it_lies(folder)
        said = refusal(folder)
        assert as_it_lies(folder) == before
        kept = json.loads((folder.path / ".runner").read_text())
    assert said.startswith(f"{folder.path} is in use by process {process.pid} on {socket.gethostname()} since 20")
    assert "RunFolder" in said, "its command is not told"
    assert said.endswith("choose another --out")
    assert set(kept) == {"pid", "host", "command", "since", "runner_id"}


def test_a_refused_command_changes_nothing_either(folder: RunFolder, launch: Launch) -> None:
    with holder(folder):
        before = as_it_lies(folder)
        done = launch("run", "resnet20_accumulation", "--arm", "16x1", "--out", str(folder.path))
        assert as_it_lies(folder) == before
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_that_dies_lets_go(folder: RunFolder, number: int) -> None:
    with holder(folder) as process:
        process.send_signal(number)
        process.wait()
        with folder_lock.claim(folder, "me") as claim:
            assert json.loads((folder.path / ".runner").read_text())["pid"] == os.getpid()
            claim.check()
    assert (folder.path / ".runner").read_text() == ""


def test_what_a_killed_holder_and_its_guard_have_left_running_is_ended_before_another_begins(folder: RunFolder) -> None:
    runner_id = f"killed{os.getpid()}"
    with holder(folder, runner_id=runner_id) as process:
        process.kill()
    mine, others = (subprocess.Popen(["sleep", "600"], env={**os.environ, RUNNER_ID: its}) for its in (runner_id, "x"))
    with mine, others:
        try:
            with folder_lock.claim(folder, "me"):
                assert (mine.wait(10), others.poll()) == (-signal.SIGKILL, None)
        finally:
            mine.kill()
            others.kill()


def test_an_error_lets_go_too(folder: RunFolder) -> None:
    with pytest.raises(ZeroDivisionError), folder_lock.claim(folder, "me"):
        raise ZeroDivisionError
    with folder_lock.claim(folder, "me"):
        pass


def test_machines_that_share_a_folder_hold_it_side_by_side_each_once(folder: RunFolder) -> None:
    with holder(folder, 1) as process, folder_lock.claim(folder, "me", 0), folder_lock.claim(folder, "he", 2):
        assert f"process {process.pid} " in refusal(folder, 1)


# A lock that is held by what cleans up


@contextlib.contextmanager
def held_by(folder: RunFolder, said: str) -> Iterator[None]:
    """The folder's lock, held by an open file of our own, whose text names another."""
    with open(folder.path / ".runner", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(said)
        file.flush()
        yield


def named(pid: int, host: str) -> str:
    return json.dumps({"pid": pid, "host": host, "command": "x", "since": "y"})


def a_dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_cleaning_up_that_does_not_end_is_waited_for_so_long(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "CLEANING_S", 0.3)
    pid = a_dead_process()
    with held_by(folder, named(pid, socket.gethostname())):
        assert f"process {pid} " in refusal(folder)


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits, fails."""

    def sleep(seconds: float) -> None:
        raise AssertionError("waited")

    monkeypatch.setattr(folder_lock, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))


@pytest.mark.usefixtures("no_wait")
def test_whether_a_process_of_another_machine_lives_is_not_known_so_it_does(folder: RunFolder) -> None:
    with held_by(folder, named(a_dead_process(), "far.away")):
        assert "on far.away since y (x)" in refusal(folder)


@pytest.mark.usefixtures("no_wait")
@pytest.mark.parametrize("said", ["", '{"pid": 12, "ho', "[]", "7", "\x00" * 20])
def test_a_holder_that_has_not_written_its_name_yet_is_another_runner(folder: RunFolder, said: str) -> None:
    with held_by(folder, said):
        assert f"{folder.path} is in use by another runner; " in refusal(folder)


@pytest.mark.parametrize("left", ["", "rubbish", named(1, "elsewhere")])
def test_what_a_former_holder_left_in_the_file_holds_nothing(folder: RunFolder, left: str) -> None:
    (folder.path / ".runner").write_text(left)
    with folder_lock.claim(folder, "me"):
        assert json.loads((folder.path / ".runner").read_text())["pid"] == os.getpid()


# A folder that goes


@pytest.mark.parametrize("again", [False, True], ids=["gone", "another in its place"])
def test_a_folder_that_is_not_the_one_any_more_is_noticed(folder: RunFolder, again: bool) -> None:
    with folder_lock.claim(folder, "me") as claim:
        claim.check()
        shutil.rmtree(folder.path)
        if again:
            folder.prepare()
            (folder.path / ".runner").touch()
        with pytest.raises(UsageError, match=f"{folder.path} was deleted or moved"):
            claim.check()


def test_a_file_system_without_locks_is_named(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert "No locks available; choose another file system for --out" in refusal(folder)


def test_a_folder_whose_environments_cannot_be_read_is_refused_before_anything_starts(folder: RunFolder) -> None:
    (folder.path / "environment.json").write_text("<<<<<<< HEAD")
    options = Options(out=folder.path)
    with folder_lock.claim(folder, "me") as lock:
        context = RunContext("me", lock, Mock(), Mock(), folder.path, options, RunOptions(), 0)
        with pytest.raises(UsageError, match=r"cannot read .*environment\.json.*; mend it, or choose another --out"):
            context.check_folder()
