"""The end of a process whose trial failed: record the cause, write the row, kill its children, exit."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import psutil

from bench.errors import UsageError
from bench.failure import causes
from bench.failure.causes import Cause, Diverged, Interrupted
from bench.failure.explain import explain
from bench.instruments.turns import TurnsEnded
from bench.machine.memory_limit import Limit
from bench.terminal import say
from bench.trial import Trial

ORPHANED_S = 0.5


@dataclass
class Ending:
    """Ends one process of a trial. `write_row` writes the trial's row, on rank 0.

    `peers` (rank -> process id on this machine) and `limit` are filled in as soon as they are known.
    """

    trial: Trial
    launch_id: str
    logs: Path
    rank: int
    write_row: Callable[[Cause], None]
    peers: Mapping[int, int] = field(default_factory=dict)
    limit: Limit | None = None

    def __post_init__(self) -> None:
        self.launcher = os.getppid()
        self.lock = threading.Lock()

    def end(self, error: BaseException) -> NoReturn:
        """End this process because of the error."""
        # Two threads may come here (see signals.end_if_stuck). The first one ends the process: it never releases.
        self.lock.acquire()
        code = 1
        try:
            code = self._exit_code(error)
        except Exception:  # or this process, and with it the group, would stay
            say(traceback.format_exc().rstrip())
        finally:
            self.leave(code)

    def leave(self, code: int) -> NoReturn:
        """Exit now, with this code, and leave no child behind."""
        for child in psutil.Process().children(recursive=True):  # loader workers
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        # Not sys.exit: if another rank is gone, the destructors of the process group would wait for it.
        os._exit(code)

    def _exit_code(self, error: BaseException) -> int:
        """Record the cause and write the row. Returns the exit code."""
        # First: under the limit there may be no memory left to do the rest.
        held_bytes = self.limit.remove() if self.limit is not None else None
        limited = self.trial.memory_limit_bytes is not None
        cause = explain(error, self.peers, self.logs, self.launch_id, self.rank, limited, held_bytes)
        if cause.status == "interrupted" and self.trial.processes > 1 and self._is_orphaned():
            cause = Cause("crashed", "the launcher was killed; if not by you, see dmesg")
        cause, is_ours = causes.record(self.logs, self.launch_id, cause)
        if is_ours and not isinstance(error, (UsageError, Diverged, Interrupted, TurnsEnded)):
            say("".join(traceback.format_exception(error)).rstrip())
        if is_ours:
            say(f"error: {cause.error}")
        if cause.usage:
            return 2
        try:
            self.write_row(cause)
        except UsageError as disk_full:  # the launcher writes the row instead, if it can
            say(f"error: {disk_full}")
            return 2
        return 130 if cause.status == "interrupted" else 1

    def _is_orphaned(self) -> bool:
        """Whether the launcher is gone. torch has the kernel send SIGINT then, a moment before the parent changes."""
        deadline = time.monotonic() + ORPHANED_S
        while os.getppid() == self.launcher and time.monotonic() < deadline:
            time.sleep(0.02)
        return os.getppid() != self.launcher
