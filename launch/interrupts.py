"""What Ctrl-C, SIGTERM and SIGHUP do to a command: it ends in good order, with exit code 130. Imports no torch."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

from bench.errors import INTERRUPTED, Ended, say
from bench.failure import signals
from bench.failure.causes import Interrupted

NOTHING_STARTED = "interrupted: nothing had started"


@contextlib.contextmanager
def before_any_trial() -> Iterator[None]:
    """Around what a command does before it starts anything: an interruption there says so."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        say(NOTHING_STARTED)
        raise Ended(INTERRUPTED) from None


def interruptible(work: Callable[[], int | None]) -> int | None:
    """The work's exit code; 130 if a signal interrupts it, which is said then."""
    try:
        with handling(interrupt):
            return work()
    except Interrupted:
        say("interrupted")
        return INTERRUPTED


@contextlib.contextmanager
def handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Have this handler called for the signals, except for those that nohup or a shell's & has told us to ignore."""
    heeded = [number for number in signals.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def interrupt(number: int, frame: object) -> None:
    """Raise Interrupted, once: a second Ctrl-C must not break off the clean-up that the first one started."""
    signals.ignore()  # until handling() restores what was there
    raise Interrupted(f"stopped by {signal.Signals(number).name}")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Delay signals to the end of this block, which must leave neither a process behind nor a trial without its row.

    What the block raises becomes the context of the Interrupted that a signal leads to.
    """
    received: list[int] = []
    try:
        with handling(lambda number, frame: received.append(number)):
            yield
    finally:
        for number in received[:1]:  # one: the handler outside ignores further ones anyway
            signal.raise_signal(number)
