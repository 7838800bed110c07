"""From the exception that ended a rank to the cause that the trial's row names."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import torch

from bench.errors import UsageError, one_line
from bench.failure import causes, last_phase, oom
from bench.failure.causes import Cause, Diverged, Interrupted
from bench.failure.next_moves import with_move
from bench.instruments.collectives import in_group
from bench.instruments.turns import TurnsEnded
from bench.variables import LAUNCH_ID

# How gloo and NCCL report a rank that is gone.
LOST = re.compile(r"gloo|nccl|connection (reset|closed|refused)|broken pipe|socket|peer", re.IGNORECASE)
LOADER_KILLED = re.compile(r"DataLoader worker .*killed by signal: Killed")
PATIENCE_S = 3.0
# The failed rank may be on another machine. Its launcher reports it, or is missed after 15 s without a heartbeat
# (launch.multi_node.store.LOST_S): give up later than that, so that the row names the machine.
REMOTE_PATIENCE_S = 20.0


def explain(
    error: BaseException,
    peers: Mapping[int, int],
    logs: Path,
    launch_id: str,
    rank: int = 0,
    limited: bool = False,
    held_bytes: int | None = None,
) -> Cause:
    """The cause behind this exception of `rank`, whose memory was `limited` and who held `held_bytes`.

    `peers`: rank -> process id of the group's processes on this machine. A killed rank cannot record a cause. The
    others fail in their next collective or get a signal; each then checks which of `peers` no longer runs.
    """
    text = with_move(one_line(error))
    interrupted = isinstance(error, (Interrupted, TurnsEnded))
    if not interrupted and (shortage := oom.shortage(error, limited)) is not None:
        return Cause(
            "oom",
            one_line(shortage) if len(peers) < 2 else f"rank {rank}: {one_line(shortage)}",
            oom_phase=oom.phase(error),
            oom_requested_bytes=oom.requested_bytes(str(shortage)),
            oom_held_bytes=held_bytes,
        )
    if isinstance(error, UsageError):
        return Cause("crashed", str(error), usage=True)
    if isinstance(error, Diverged):
        return Cause("diverged", str(error))
    if interrupted or ((len(peers) > 1 or in_group()) and LOST.search(text)):
        several_machines = in_group() and torch.distributed.get_world_size() > len(peers)
        patience_s = 0.0 if interrupted else REMOTE_PATIENCE_S if several_machines else PATIENCE_S
        gone = _gone(peers, logs, launch_id, patience_s)
        if gone := gone or ([] if peers else _gone_early(rank)):
            return causes.killed(gone[0], phase=last_phase.of(launch_id, gone[0]))
    if LOADER_KILLED.search(str(error)):
        return Cause("crashed", text, silent=True, oom_phase=oom.phase(error), oom_held_bytes=held_bytes)
    return Cause("interrupted", str(error)) if interrupted else Cause("crashed", text)


def _gone(peers: Mapping[int, int], logs: Path, launch_id: str, patience_s: float) -> list[int]:
    """Ranks of this machine that no longer run. Waits up to `patience_s` for one, or for a recorded cause.

    A connection breaks a moment before its process has ended.
    """
    deadline = time.monotonic() + patience_s
    while True:
        gone = [rank for rank, pid in peers.items() if not _runs(pid)]
        if gone or causes.recorded(logs, launch_id) or time.monotonic() > deadline:
            return gone
        time.sleep(0.1)


def _gone_early(rank: int) -> list[int]:
    """Ranks of this machine that no longer run, where the group has not formed and none knows the others' process ids.

    torch's launcher, whose children all are, has then ended this one too, with the signal of somebody who asks to stop.
    Nothing is known of ranks that were started by hand.
    """
    if LAUNCH_ID not in os.environ:
        return []
    launcher, count = os.getppid(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    first = rank - int(os.environ.get("LOCAL_RANK", "0"))
    with contextlib.suppress(psutil.Error):
        running = [child.name() for child in psutil.Process(launcher).children() if _runs(child.pid)]
        if launcher != 1 and len(running) < count:  # 1: the launcher is gone itself
            return [number for number in range(first, first + count) if f"rank {number}" not in running]
    return []


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
