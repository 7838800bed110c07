"""Why a trial ended: the first cause that one of its processes, or what watches them, put on record. No torch."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple


class Cause(NamedTuple):
    """A status of trials.csv, one line, and whether the request itself was wrong (exit code 2).

    `silent`: a process is gone and left no word. Of one that ran out of memory: in which phase, what it had asked for
    and what it held; None: unknown.
    """

    status: str
    error: str
    usage: bool = False
    silent: bool = False
    oom_phase: str | None = None
    oom_requested_bytes: int | None = None
    oom_held_bytes: int | None = None

    def columns(self) -> dict[str, Any]:
        """The columns of trials.csv that say why it ended, but for its error."""
        return {name: value for name, value in self._asdict().items() if name == "status" or name.startswith("oom_")}


def killed(rank: int) -> Cause:
    """That a rank was killed, as whoever finds it gone puts it: of itself it says nothing."""
    return Cause("crashed", f"rank {rank} was killed: it is gone and left no word (see the kernel's log)", silent=True)


class Interrupted(BaseException):
    """The process was asked to stop: Ctrl-C or a signal."""


def put(logs: Path, launch_id: str, cause: Cause) -> tuple[Cause, bool]:
    """Record why the launch ends, unless that is known already: (what is on record, whether it is this).

    One rank's end makes the others fail in their next collective: what came first is the cause.
    """
    path = logs / f"{launch_id}.cause.json"
    scratch = logs / f".{launch_id}.{os.getpid()}.cause"
    try:
        scratch.write_text(json.dumps(cause._asdict()))
        os.link(scratch, path)
        return cause, True
    except FileExistsError:
        return get(logs, launch_id) or cause, False
    except OSError:  # no folder, no room: the cause itself must not be lost to that
        return cause, True
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


def get(logs: Path, launch_id: str) -> Cause | None:
    """What is on record."""
    try:
        return Cause(**json.loads((logs / f"{launch_id}.cause.json").read_text()))
    except (OSError, ValueError):
        return None


class Diverged(Exception):
    """The training loss is not finite."""
