"""Finds and ends the processes of a launch. Imports only the standard library.

There are two ways to find them. A cold launch's processes inherit an environment variable, though not a session: torch
starts each rank in a new one. A warm launch's processes share a session, but not the variable: /proc shows a forked
process the variables of the server that it was forked from.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Between looks at what is left of a group. A look reads /proc for every process of the machine, some ms for 100.
POLL_S = 0.05


def living_pids() -> Iterator[int]:
    """Process ids of this machine, without zombies."""
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and _state(int(entry)) not in ("Z", "X", ""):
            yield int(entry)


def with_variable(name: str, value: str) -> set[int]:
    """Living processes that were started with this environment variable, except this one."""
    variable = f"{name}={value}".encode()
    return {pid for pid in living_pids() if pid != os.getpid() and variable in _read(pid, "environ").split(b"\0")}


def in_session(session: int) -> set[int]:
    """Living processes of a session. Its leader may have ended: Linux reuses the number only after all have."""
    pids = set()
    for pid in living_pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == session:
                pids.add(pid)
    return pids


def end_all(members: Callable[[], set[int]], grace_s: float, patience_s: float = math.inf) -> set[int]:
    """End these processes: SIGTERM, and SIGKILL `grace_s` seconds later.

    `members` is called again and again, because processes that are being ended may start others. Returned: those that
    are alive `patience_s` after SIGKILL, which does not end a process that waits inside a driver.
    """
    deadline = time.monotonic() + grace_s
    terminated: set[int] = set()
    while alive := members():
        kill = time.monotonic() >= deadline
        if time.monotonic() > deadline + patience_s:
            break
        for pid in alive if kill else alive - terminated:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)  # a stopped process (SIGSTOP) handles SIGTERM only once it continues
        terminated |= alive
        time.sleep(POLL_S)
    return alive


def catches_signal(pid: int, number: int) -> bool:
    """Whether a process has a handler for this signal; without one, SIGUSR1 would end it."""
    for line in _read(pid, "status").splitlines():
        if line.startswith(b"SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def signal_name(number: int) -> str:
    """SIGKILL for 9; real-time signals have no name."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def name(pid: int) -> str:
    """A process's name in ps; "" if there is no such process."""
    return _read(pid, "comm").decode(errors="replace").strip()


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return _state(pid) not in ("Z", "X", "")


def _state(pid: int) -> str:
    """The state's letter (see proc(5)), "" if there is no such process. The name before it may hold a ")" itself."""
    return _read(pid, "stat").rpartition(b") ")[2][:1].decode()


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
