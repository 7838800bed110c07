"""Ranks that crash without an exception, under a memory limit. Imports no torch.

Some libraries do not check whether they got memory. oneDNN, for example, calls a kernel that it could not compile, and
the operating system ends the process with SIGSEGV. Under a limit such a rank writes its Python stack to a file and
then pauses. The launcher finds the file, reads how much memory the paused process holds, and kills it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

from bench.failure import oom
from bench.failure.causes import Cause
from bench.machine import procfs

# A rank that crashed this close to its limit ran out of memory. It is far more than compiled kernels and malloc's steps
# take, and far less than the tensors of any model.
NEAR_BYTES = 2 * 2**20
SETTLE_S = 0.2  # the stack is complete when its file has not changed for this long
SIGNAL_TEXT = re.compile("Segmentation fault|Bus error|Aborted")  # faulthandler's words
FRAME = re.compile(r'^  File "(.+)", line \d+ in (.+)$', re.MULTILINE)


def install(logs: Path, launch_id: str, rank: int, limit_bytes: int, base_bytes: int) -> None:
    """Make this process write its stack and pause when it crashes. Its launcher must call `crashed_rank`."""
    file = open(logs / f"{launch_id}.{rank}.fault", "w", encoding="utf-8")  # noqa: SIM115  open to the end
    header = {"host": socket.gethostname(), "rank": rank, "pid": os.getpid()}
    header |= {"limit_bytes": limit_bytes, "base_bytes": base_bytes}
    print(json.dumps(header), file=file, flush=True)
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT):
        # faulthandler, enabled below, writes the stack, restores the handler that it replaced, and raises the signal
        # again: then this one pauses. A handler in Python would wait for an interpreter that no longer runs.
        libc.signal(number, ctypes.cast(libc.pause, ctypes.c_void_p))
    faulthandler.enable(file)


def crashed_rank(logs: Path, launch_id: str) -> tuple[Cause, int, str] | None:
    """(cause, process id, Python stack) of a rank on this machine that crashed and is paused; None: there is none."""
    for path in sorted(logs.glob(f"{launch_id}.*.fault")):
        text = path.read_text(encoding="utf-8", errors="replace")
        header_line, _, stack = text.partition("\n")
        if not FRAME.search(stack):
            continue
        header = json.loads(header_line)
        if header["host"] != socket.gethostname():  # machines may share the folder
            continue
        time.sleep(SETTLE_S)
        if path.read_text(encoding="utf-8", errors="replace") != text:
            continue
        return _cause(header, stack), header["pid"], stack
    return None


def _cause(header: dict[str, Any], stack: str) -> Cause:
    names = SIGNAL_TEXT.findall(stack)  # empty if two threads crashed at once and overwrote each other's text
    text = f"rank {header['rank']} crashed: {names[0] if names else 'its stack is in the log'}"
    in_use = procfs.data_bytes(Path(f"/proc/{header['pid']}/status"))
    held = None if in_use is None else in_use - header["base_bytes"]
    phase = oom.phase_of(reversed(FRAME.findall(stack)))  # faulthandler prints the innermost call first
    cause = Cause("crashed", text, oom_phase=phase, oom_held_bytes=held)
    if held is None or held < header["limit_bytes"] - NEAR_BYTES:
        return cause._replace(silent=True, killed_by_launcher=True)
    return cause._replace(status="oom", error=f"{text}, with no memory left under its limit")
