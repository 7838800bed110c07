"""What /proc says about this machine's memory and its processes. Imports no torch.

Every reader returns None (or an empty dict) where the kernel does not say. `root` is / but in tests.
"""

from __future__ import annotations

import ctypes
import re
import signal
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15  # of sys/prctl.h


def name_process(name: str) -> None:
    """Set the name of this process that ps, top and /proc/PID/comm show. The kernel keeps 15 bytes."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def meminfo(root: Path = Path("/")) -> dict[str, int]:
    """The entries of /proc/meminfo in bytes, such as MemTotal and MemAvailable."""
    sizes = re.findall(r"^(\w+):\s+(\d+) kB$", text(root / "proc" / "meminfo"), re.MULTILINE)
    return {name: int(kib) * 1024 for name, kib in sizes}


def data_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """What the kernel counts against RLIMIT_DATA: private writable memory, whether touched or not."""
    return _size("VmData", status)


def rss_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """Resident memory now."""
    return _size("VmRSS", status)


def peak_rss_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """Peak resident memory. Not getrusage's ru_maxrss: a process inherits that from its parent."""
    return _size("VmHWM", status)


def _size(name: str, status: Path) -> int | None:
    size = re.search(rf"^{name}:\s+(\d+) kB$", text(status), re.MULTILINE)
    return int(size[1]) * 1024 if size else None


def text(path: Path) -> str:
    """The file's text; "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
