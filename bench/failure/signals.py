"""How a trial's process reacts to a signal that asks it to stop: the signal becomes an exception. Imports no torch.

The main thread may be waiting inside CUDA, in a collective whose peer is gone. Python runs no signal handler there, so
another thread ends the process.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from bench.failure.causes import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The main thread counts as stuck this long after a signal. A launcher waits longer before it sends SIGKILL.
STUCK_S = 3.0


def raise_interrupted() -> None:
    """Make these signals raise Interrupted in the main thread."""
    for number in SIGNALS:
        signal.signal(number, _raise)


def ignore() -> None:
    """Ignore these signals from now on."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def ignore_all() -> None:
    """Ignore these signals from now on, and the end of loader workers, at which torch's handler would raise."""
    ignore()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def end_at_once() -> None:
    """Let these signals end the process from now on, without an exception."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def end_if_stuck(end: Callable[[Interrupted], object]) -> None:
    """Start a thread that calls `end` if the process still runs STUCK_S after it got a signal."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    # C code writes each signal's number to this pipe, also while the main thread runs no Python.
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    # A forked loader worker inherits the pipe: its signals must not end this process.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

    def wait() -> None:
        while (number := os.read(read_fd, 1)[0]) not in SIGNALS:
            pass
        time.sleep(STUCK_S)
        end(_interrupted(number))

    threading.Thread(target=wait, name="end if stuck", daemon=True).start()


def _raise(number: int, frame: object) -> None:
    ignore()
    raise _interrupted(number)


def _interrupted(number: int) -> Interrupted:
    return Interrupted(f"stopped by {signal.Signals(number).name}")
