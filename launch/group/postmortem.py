"""Did a process that was killed run out of memory? The kernel's counter or the log's last lines may say."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

from bench.failure.causes import Cause
from bench.machine import cgroups

# How Accelerate, torchrun and DataLoader log that a process was killed. After a warm start a killed rank is on record
# too (fork_server.record_killed_ranks).
KILLED = re.compile(r"\(SIGKILL\)|Signals\.SIGKILL|killed by signal: Killed")
# What libraries print before they end a process because an allocation failed.
LAST_WORDS = re.compile(
    r"std::bad_alloc|libgomp: (?:Thread creation failed|Out of memory).*|Cannot recover from MemoryErr.*"
)
TAIL_BYTES = 65536


def refine(cause: Cause, exit_code: int | None, log: Path, oom_kills_before: int | None, root: Path) -> Cause:
    """The cause, or one of status oom in its place if it is silent and there is evidence of missing memory.

    `exit_code`: the launcher's. `oom_kills_before`: the kernel's count of processes that it has killed for lack of
    memory, as read from below `root` when the trial started; None: the kernel has no such count.
    """
    if not cause.silent:
        return cause
    text = ""
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    kills = cgroups.oom_kills(root)
    # We kill a rank ourselves after it crashed (bench.failure.crash_handler): its SIGKILL is no sign of missing memory.
    killed = (exit_code == -signal.SIGKILL or KILLED.search(text)) and not cause.killed_by_launcher
    if killed and oom_kills_before is not None and kills is not None and kills > oom_kills_before:
        count = f"oom_kill rose from {oom_kills_before} to {kills}"
        limit = cgroups.smallest_limit(root)
        where = f", in a control group with {limit.limit_bytes / 2**30:.2f} GiB ({limit.source})" if limit else ""
        return cause._replace(status="oom", error=f"killed by the kernel, whose {count}{where}: {cause.error}")
    if words := LAST_WORDS.search(text):
        return cause._replace(status="oom", error=f"{words[0]}: {cause.error}")
    return cause
