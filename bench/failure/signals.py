"""How a trial's process ends when it is asked to: a signal becomes an exception. Imports no torch.

Its main thread may be waiting inside CUDA, for a collective whose peer is gone. No handler of Python's runs there, so
another thread ends the process instead.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from bench.failure.causes import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# From a signal until the main thread counts as stuck: well within a launcher's patience.
STUCK_S = 3.0


def raise_interrupted() -> None:
    """Have these signals raise Interrupted in the main thread."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)


def ignore() -> None:
    """Have them do nothing any more."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_if_stuck(end: Callable[[Interrupted], object]) -> None:
    """Have a thread call `end` if this process is there yet some time after it was asked to end."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # what a loader worker gets is its own

    def wait() -> None:
        while (number := os.read(reading, 1)[0]) not in SIGNALS:
            pass
        time.sleep(STUCK_S)
        end(_asked(number))

    threading.Thread(target=wait, name="end if stuck", daemon=True).start()


def _interrupt(number: int, frame: object) -> None:
    ignore()
    raise _asked(number)


def _asked(number: int) -> Interrupted:
    return Interrupted(f"stopped by {signal.Signals(number).name}")
