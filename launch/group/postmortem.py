"""What a process died of that left no word: of the kernel, which had no memory left, or of a library that had none."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

from bench.failure.causes import Cause
from bench.machine import procfs

# As Accelerate, torchrun and DataLoader put it in a launch's log, which alone says how a rank ended.
KILLED = re.compile(r"\(SIGKILL\)|Signals\.SIGKILL|killed by signal: Killed")
# The last words of libraries that end a process in which they get no memory.
LAST_WORDS = re.compile(
    r"std::bad_alloc|libgomp: (?:Thread creation failed|Out of memory).*|Cannot recover from MemoryErr.*"
)
TAIL = 65536


def cause(said: Cause, code: int | None, log: Path, kills_before: int | None, root: Path) -> Cause:
    """The cause, or oom in its place where a process died of that without a word.

    `said`: what is known otherwise; `code`: the launcher's exit code; `kills_before`: the kernel's count at the start.
    """
    if not said.silent:
        return said
    text = ""
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        text = file.read().decode(errors="replace")
    kills = procfs.oom_kills(root)
    # The launcher kills a crashed rank itself (see bench/failure/crash_handler.py): no sign of missing memory.
    killed = (code == -signal.SIGKILL or KILLED.search(text)) and not said.killed_by_launcher
    if killed and kills_before is not None and kills is not None and kills > kills_before:
        return Cause("oom", f"killed by the kernel, whose oom_kill rose from {kills_before} to {kills}: {said.error}")
    if words := LAST_WORDS.search(text):
        return Cause("oom", f"{words[0]}: {said.error}")
    return said
