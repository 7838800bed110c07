"""Which status and which line stand for the exception that ended a rank."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import torch

from bench.errors import UsageError
from bench.failure import causes, oom
from bench.failure.causes import Cause, Diverged, Interrupted
from bench.instruments.collectives import in_group
from bench.record.rows import one_line

LOST = re.compile(r"gloo|nccl|connection (reset|closed|refused)|broken pipe|socket|peer", re.IGNORECASE)
LOADER_KILLED = re.compile(r"DataLoader worker .*killed by signal: Killed")
PATIENCE_S = 3.0
REMOTE_PATIENCE_S = 10.0  # where what happened may be on another machine


def explain(
    error: BaseException,
    peers: Mapping[int, int],
    logs: Path,
    launch_id: str,
    rank: int = 0,
    limited: bool = False,
    held_bytes: int | None = None,
) -> Cause:
    """The cause that this exception is. `peers`: rank -> process id of the group's processes on this machine.

    `held_bytes`: what this process, of this rank, held. A rank that is killed says nothing itself:
    the others fail in their next collective, or are told to stop.
    """
    text = one_line(error)
    stopped = isinstance(error, Interrupted)
    if not stopped and (shortage := oom.shortage(error, limited)) is not None:
        said = one_line(shortage) if len(peers) < 2 else f"rank {rank}: {one_line(shortage)}"
        return Cause(
            "oom",
            said,
            oom_phase=oom.phase(error),
            oom_requested_bytes=oom.requested_bytes(str(shortage)),
            oom_held_bytes=held_bytes,
        )
    if isinstance(error, UsageError):
        return Cause("crashed", str(error), usage=True)
    if isinstance(error, Diverged):
        return Cause("diverged", str(error))
    if stopped or ((len(peers) > 1 or in_group()) and LOST.search(text)):
        others = in_group() and torch.distributed.get_world_size() > len(peers)
        gone = _gone(peers, logs, launch_id, 0.0 if stopped else REMOTE_PATIENCE_S if others else PATIENCE_S)
        if gone:
            return causes.killed(gone[0])
    if LOADER_KILLED.search(str(error)):
        return Cause("crashed", text, silent=True)
    return Cause("interrupted", str(error)) if stopped else Cause("crashed", text)


def _gone(peers: Mapping[int, int], logs: Path, launch_id: str, patience_s: float) -> list[int]:
    """Ranks that no longer run, waiting a little for them to be gone or for a cause on record."""
    until = time.monotonic() + patience_s
    while True:
        gone = [rank for rank, pid in peers.items() if not _runs(pid)]
        if gone or causes.get(logs, launch_id) or time.monotonic() > until:
            return gone
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
