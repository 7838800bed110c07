"""How did a process end that recorded no cause, and did its memory run out? The log or the kernel's counter may say."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

from bench.failure import causes
from bench.failure.causes import Cause
from bench.machine import cgroups
from launch.group import processes

# How Accelerate, torchrun and DataLoader log that a process was killed. After a warm start a killed rank is on record
# too (fork_server.record_killed_ranks).
KILLED = re.compile(r"\(SIGKILL\)|Signals\.SIGKILL|killed by signal: Killed")
# What libraries print before they end a process because an allocation failed.
LAST_WORDS = re.compile(
    r"std::bad_alloc|libgomp: (?:Thread creation failed|Out of memory).*|Cannot recover from MemoryErr.*"
)
# How torchrun, in its table of failures, and our own launcher (fork_server.record_killed_ranks) log a rank's end.
ENDED = (
    re.compile(r"rank +: (?P<rank>\d+) \(.*\n +exitcode +: (?P<code>-?\d+) "),
    re.compile(r"launcher: rank (?P<rank>\d+) died of signal (?P<signal>\d+) "),
)
# How Accelerate logs that of a single process.
ALONE = re.compile(r"died with <Signals\.(?P<name>\w+): \d+>|returned non-zero exit status (?P<code>\d+)")
# A traceback and its last line; those of launchers say no more than that a rank has failed.
LAST_LINE = re.compile(
    r"Traceback \(most recent call last\):\n(?:[ \t].*\n)+(?P<last>(?!.*(?:ChildFailed|CalledProcess)Error)\S.*)"
)
TAIL_BYTES = 65536


def refine(cause: Cause, exit_code: int | None, log: Path, oom_kills_before: int | None, root: Path) -> Cause:
    """The cause; if it is silent, with how the rank ended, or one of status oom if there is evidence of missing memory.

    `exit_code`: the launcher's. `oom_kills_before`: the kernel's count of processes that it has killed for lack of
    memory, as read from below `root` when the trial started; None: the kernel has no such count.
    """
    if not cause.silent:
        return cause
    text = ""
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    if cause.lost_rank is not None:
        found = how_it_ended(cause.lost_rank, text)
        cause = found._replace(oom_phase=cause.oom_phase) if found is not None else cause
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


def how_it_ended(rank: int, log: str) -> Cause | None:
    """The end of this rank by the log; None: the log does not tell.

    torch ends the ranks that are left by SIGTERM, and logs that too: not how they ended by themselves.
    """
    for found in (match for pattern in ENDED for match in pattern.finditer(log) if int(match["rank"]) == rank):
        parts = found.groupdict()
        code = -int(parts["signal"]) if "signal" in parts else int(parts["code"])
        if code < 0 and code != -signal.SIGTERM:
            return causes.killed(rank, processes.signal_name(-code))
        if code > 0:
            return causes.gave_up(rank, code, last_line(log))
    if (alone := ALONE.search(log)) and rank == 0:
        code = int(alone["code"] or 0)
        return causes.gave_up(0, code, last_line(log)) if code else causes.killed(0, alone["name"])
    return None


def last_line(log: str) -> str:
    """The last line of the first traceback in the log that is a rank's; "": there is none."""
    found = LAST_LINE.search(log)
    return found["last"] if found else ""
