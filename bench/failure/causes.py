"""Why a trial ended: the first cause that a rank or its launcher records stands for the trial. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from bench.failure import next_moves


class Diverged(Exception):
    """A loss, or the model after an epoch, is not finite."""


class Interrupted(BaseException):
    """The process was asked to stop: Ctrl-C or a signal."""


class Cause(NamedTuple):
    """A status of trials.csv and one line of text.

    `usage`: the request itself was wrong (exit code 2).
    `silent`: a process ended without an exception. The launcher then looks for signs that memory ran out.
    `killed_by_launcher`: the launcher killed the rank itself, after it had crashed; that SIGKILL is no such sign.
    `lost_rank`: of a rank that is gone, while it is not known how it ended. The launcher looks for that.
    `oom_*`: of a process that ran out of memory, the phase, the bytes requested and the bytes held; None: unknown. A
    silent cause has them in case that it is found to be one.
    """

    status: str
    error: str
    usage: bool = False
    silent: bool = False
    killed_by_launcher: bool = False
    lost_rank: int | None = None
    oom_phase: str | None = None
    oom_requested_bytes: int | None = None
    oom_held_bytes: int | None = None

    def columns(self) -> dict[str, Any]:
        """The columns of trials.csv that describe the cause, except `error`."""
        ran_out = {name: value for name, value in self._asdict().items() if name.startswith("oom_")}
        return {"status": self.status, **(ran_out if self.status == "oom" else dict.fromkeys(ran_out))}


def killed(rank: int, signal_name: str | None = None, phase: str | None = None) -> Cause:
    """A rank ended and recorded no cause. `signal_name`: the signal that ended it, if known; `phase`: its last one."""
    if signal_name in (None, "SIGKILL"):
        by = f" by {signal_name}" if signal_name else ""
        text = f"rank {rank} was killed{by}; if not by you, see dmesg"
        return Cause("crashed", text, silent=True, lost_rank=None if signal_name else rank, oom_phase=phase)
    return Cause("crashed", f"rank {rank} died of {signal_name}; {next_moves.of_signal(signal_name)}", silent=True)


def gave_up(rank: int, exit_code: int, last_line: str) -> Cause:
    """A rank ended with an exit code and recorded no cause. `last_line`: of its traceback, if the log has one."""
    why = next_moves.with_move(last_line) if last_line else "it recorded no cause; see the log"
    return Cause("crashed", f"rank {rank} ended with exit code {exit_code}: {why}", silent=True)


def record(logs: Path, launch_id: str, cause: Cause) -> tuple[Cause, bool]:
    """Record why the launch ends, unless a cause is recorded already. Returns (the recorded cause, whether it is ours).

    When one rank fails, the others fail in their next collective. Only the first cause is the real one.
    """
    path = logs / f"{launch_id}.cause.json"
    scratch = logs / f".{launch_id}.{os.getpid()}.cause"
    try:
        scratch.write_text(json.dumps(cause._asdict()), encoding="utf-8")
        # A link is atomic and fails if the name exists: of several ranks, exactly one records its cause.
        os.link(scratch, path)
        return cause, True
    except FileExistsError:
        return recorded(logs, launch_id) or cause, False
    except OSError:  # no folder or no space: report the cause all the same
        return cause, True
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


def recorded(logs: Path, launch_id: str) -> Cause | None:
    """The recorded cause of this launch, if there is one."""
    try:
        return Cause(**json.loads((logs / f"{launch_id}.cause.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
