"""The processes that come of a launch: who they are, and their end. Imports the standard library alone.

A launch's processes are known by an environment variable, which each hands on to what it starts, or by their session:
what is forked from a warm process shows that one's variables, and what torch starts is in a session of its own.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

RUNNER_ID = "RESBENCH_RUNNER_ID"
POLL_S = 0.05


def living() -> Iterator[int]:
    """Process ids of this machine, zombies left out."""
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and _state(int(entry)) not in ("Z", "X", ""):
            yield int(entry)


def having(name: str, value: str) -> set[int]:
    """Living processes that were started with this environment variable; this one is not among them."""
    wanted = f"{name}={value}".encode()
    return {pid for pid in living() if pid != os.getpid() and wanted in _read(pid, "environ").split(b"\0")}


def in_session(session: int) -> set[int]:
    """Living processes of a session, also once its leader is gone: its number is not given out again before."""
    found = set()
    for pid in living():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == session:
                found.add(pid)
    return found


def end(members: Callable[[], set[int]], grace_s: float, patience_s: float = math.inf) -> set[int]:
    """End all of these processes: asked first, killed `grace_s` seconds later.

    Returned: those that are there yet `patience_s` after that, since not even SIGKILL reaches one inside a driver.
    """
    deadline = time.monotonic() + grace_s
    asked: set[int] = set()
    while found := members():
        late = time.monotonic() >= deadline
        if time.monotonic() > deadline + patience_s:
            break
        for pid in found if late else found - asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)  # what is stopped (SIGSTOP) heeds no request before
        asked |= found
        time.sleep(POLL_S)
    return found


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for this signal, whose default would end it."""
    for line in _read(pid, "status").splitlines():
        if line.startswith(b"SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def signal_name(number: int) -> str:
    """SIGKILL of 9; real-time signals have no name."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def name(pid: int) -> str:
    """What a process is called in ps; "" of none."""
    return _read(pid, "comm").decode(errors="replace").strip()


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    return _state(pid) not in ("Z", "X", "")


def _state(pid: int) -> str:
    """One letter (see proc(5)), or "" of no process. What is in brackets before it may hold anything."""
    return _read(pid, "stat").rpartition(b") ")[2][:1].decode()


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
