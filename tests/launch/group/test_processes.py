"""Processes are found by what they hand on, whatever they call themselves, and are ended whatever they do about it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping

import pytest
from launching import python, until

from launch.group import processes

MARK = "RESBENCH_PROCESSES_TEST"
SLEEP = "import time; time.sleep(600)"
READY = "print('ready', flush=True); "
# Starts another in a session of its own, as torch does its ranks, and goes.
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True); "
LONG_S = 60.0


class Family:
    """Processes with a mark, and what they start."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self.started: list[subprocess.Popen[str]] = []

    def start(self, code: str = READY + SLEEP, more: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """One that runs the code and has printed its first line, if it prints one."""
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, MARK: self.mark, **(more or {})},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def members(self) -> set[int]:
        return processes.with_variable(MARK, self.mark)

    def close(self) -> None:
        for process in self.started:
            process.kill()
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def family() -> Iterator[Family]:
    found = Family()
    yield found
    found.close()


def test_who_has_the_variable_is_found_and_nobody_else(family: Family) -> None:
    one, two = family.start(), family.start()
    family.start(more={MARK: family.mark + "0"})
    family.start(more={MARK: "0" + family.mark})
    family.start(more={MARK: "", "ANOTHER_" + MARK: family.mark})
    assert family.members() == {one.pid, two.pid}


def test_a_process_does_not_count_itself(family: Family) -> None:
    code = f"import os; from launch.group import processes; print(processes.with_variable({MARK!r}, {family.mark!r}))"
    done = python("-c", code, env={MARK: family.mark})
    assert done.stdout == "set()\n", done.stderr


def test_one_whose_parent_is_gone_is_found_by_its_variable_in_a_session_of_its_own(family: Family) -> None:
    parent = family.start(PARENT + "print('ready', flush=True)")
    assert parent.wait() == 0
    (orphan,) = family.members()
    assert os.getsid(orphan) == orphan
    assert processes.in_session(parent.pid) == set()


def test_a_session_is_found_also_when_its_leader_is_gone(family: Family) -> None:
    leader = family.start("import os, time\nif os.fork() == 0:\n    time.sleep(600)\nprint('ready', flush=True)")
    assert leader.wait() == 0
    (child,) = processes.in_session(leader.pid)
    assert os.getsid(child) == leader.pid
    processes.end_all(lambda: processes.in_session(leader.pid), LONG_S)
    assert processes.in_session(leader.pid) == set()


@pytest.mark.parametrize("name", ["a) Z (b", "((", ") X 1"])
def test_no_name_makes_a_process_look_dead(family: Family, name: str) -> None:
    rename = f"file = open('/proc/self/comm', 'w'); file.write({name!r}); file.close(); "
    process = family.start(rename + READY + SLEEP)
    assert processes.name(process.pid) == name
    assert processes.is_running(process.pid)
    assert process.pid in set(processes.living_pids())


def test_a_zombie_and_what_never_was_do_not_run(family: Family) -> None:
    process = family.start("")
    until(lambda: not processes.is_running(process.pid), "its end")
    assert process.returncode is None, "nobody was to wait for it yet"
    assert process.pid not in set(processes.living_pids())
    never = 2**22 + 1  # Linux gives out none above 2**22
    assert not processes.is_running(never)
    assert processes.name(never) == ""


@pytest.mark.parametrize("stopped", [False, True])
def test_who_listens_has_time_to_end_by_itself(family: Family, stopped: bool) -> None:
    handle = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: (print('by itself'), sys.exit(3))); "
    process = family.start(handle + READY + SLEEP)
    if stopped:
        process.send_signal(signal.SIGSTOP)
    assert processes.end_all(family.members, LONG_S) == set()
    said, _ = process.communicate()
    assert (process.returncode, said) == (3, "by itself\n")


def test_who_does_not_listen_is_killed(family: Family) -> None:
    process = family.start("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY + SLEEP)
    assert processes.end_all(family.members, grace_s=0.2) == set()
    assert process.wait() == -signal.SIGKILL


def test_what_not_even_sigkill_ends_is_told(family: Family) -> None:
    """A zombie is as deaf as a process that hangs in a driver."""
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert processes.end_all(lambda: {zombie.pid}, grace_s=0.1, patience_s=0.2) == {zombie.pid}
    zombie.wait()


def test_nobody_is_asked_twice(family: Family) -> None:
    count = "import signal; signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))\n"
    process = family.start(f"{count}{READY}\nwhile True:\n    signal.pause()")
    processes.end_all(family.members, grace_s=1.0)
    assert process.communicate()[0] == "asked\n"


def test_what_is_started_meanwhile_is_ended_too(family: Family) -> None:
    """Whoever is asked to end leaves another behind, as a launcher does that is just starting a rank."""
    handle = f"""
import signal, subprocess, sys
def leave(*_):
    subprocess.Popen([sys.executable, "-c", {SLEEP!r}], start_new_session=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, leave)
"""
    process = family.start(handle + READY + SLEEP)
    processes.end_all(family.members, LONG_S)
    assert process.wait() == 3
    assert family.members() == set()


@pytest.mark.parametrize(
    ("code", "caught"),
    [
        ("", False),
        ("import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN); ", False),
        ("import faulthandler, signal; faulthandler.register(signal.SIGUSR1); ", True),
    ],
    ids=["default", "ignored", "handled"],
)
def test_whom_a_signal_would_end_is_told_from_who_has_a_handler(family: Family, code: str, caught: bool) -> None:
    process = family.start(code + READY + SLEEP)
    assert processes.catches_signal(process.pid, signal.SIGUSR1) is caught
    assert not processes.catches_signal(process.pid, signal.SIGUSR2)


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (15, "SIGTERM"), (40, "signal 40")])
def test_signals_have_names(number: int, name: str) -> None:
    assert processes.signal_name(number) == name
