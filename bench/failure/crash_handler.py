"""A rank under a limit that breaks without an exception. Imports no torch.

Some libraries do not see that they got no memory, and go on until the kernel ends the process for it: oneDNN calls a
kernel that it could not compile. Such a rank writes its Python stack down and stays as it is, so that the launcher can
see whether the limit was exhausted, and ends it.
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

# Far more than compiled kernels and malloc's steps take, far less than the tensors of any model.
NEAR = 2 * 2**20
WHOLE_S = 0.2
BROKEN = re.compile("Segmentation fault|Bus error|Aborted")
FRAME = re.compile(r'^  File "(.+)", line \d+ in (.+)$', re.MULTILINE)


def stay(logs: Path, launch_id: str, rank: int, limit_bytes: int, base_bytes: int) -> None:
    """Have this process stay when it breaks. Only for one whose launcher looks for that."""
    file = open(logs / f"{launch_id}.{rank}.fault", "w")  # noqa: SIM115  open to the end
    facts = {"host": socket.gethostname(), "rank": rank, "pid": os.getpid()}
    facts |= {"limit_bytes": limit_bytes, "base_bytes": base_bytes}
    print(json.dumps(facts), file=file, flush=True)
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT):
        # What comes after the stack is written. A handler in Python would wait for the interpreter.
        libc.signal(number, ctypes.cast(libc.pause, ctypes.c_void_p))
    faulthandler.enable(file)


def look(logs: Path, launch_id: str) -> tuple[Cause, int, str] | None:
    """(why it broke, its process id, its Python stack) of a rank of this machine that has, and is there still."""
    for path in sorted(logs.glob(f"{launch_id}.*.fault")):
        header, _, stack = path.read_text().partition("\n")
        # It stays, so that there is time for the stack to be whole.
        if not FRAME.search(stack) or time.time() - path.stat().st_mtime < WHOLE_S:
            continue
        facts = json.loads(header)
        if facts["host"] != socket.gethostname():  # machines may share the folder
            continue
        return _cause(facts, stack), facts["pid"], stack
    return None


def _cause(facts: dict[str, Any], stack: str) -> Cause:
    names = BROKEN.findall(stack)  # two threads at once write one over the other
    said = f"rank {facts['rank']} broke: {names[0] if names else 'its stack is in the log'}"
    in_use = procfs.data_bytes(Path(f"/proc/{facts['pid']}/status"))
    held = None if in_use is None else in_use - facts["base_bytes"]
    if held is None or held < facts["limit_bytes"] - NEAR:
        return Cause("crashed", said, silent=True)
    phase = oom.phase_of(reversed(FRAME.findall(stack)))
    return Cause("oom", f"{said}, where its limit left no memory", oom_phase=phase, oom_held_bytes=held)
