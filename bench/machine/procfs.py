"""What the kernel says of memory: what a process has in use, and whom it killed for want of it. Imports no torch."""

from __future__ import annotations

import ctypes
from pathlib import Path

PR_SET_NAME = 15  # of sys/prctl.h


def name_process(name: str) -> None:
    """Have this process called so in ps and top; 15 bytes of it are kept."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)


def oom_kills(root: Path = Path("/")) -> int | None:
    """Processes that the kernel has killed for want of memory: in this process's control group (version 2), or else on
    the whole machine; None: it does not say. `root`: where /proc and /sys lie."""
    for path in (_own_group(root), root / "proc" / "vmstat"):
        counts = _counts(path) if path is not None else {}
        if "oom_kill" in counts:
            return int(counts["oom_kill"])
    return None


def _own_group(root: Path) -> Path | None:
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return None
    groups = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    return root / "sys" / "fs" / "cgroup" / groups[0] / "memory.events" if groups else None


def _counts(path: Path) -> dict[str, str]:
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: words[1] for words in lines if len(words) == 2}


def data_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """What the kernel counts against RLIMIT_DATA: private writable memory, touched or not; None: it does not say."""
    return _size("VmData", status)


def rss_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """What is resident of a process now; None: the kernel does not say."""
    return _size("VmRSS", status)


def peak_rss_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """The most that was resident; None: the kernel does not say.

    Not getrusage's ru_maxrss: a process inherits that from the one that started it.
    """
    return _size("VmHWM", status)


def _size(name: str, status: Path) -> int | None:
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]
    return sizes[0] if sizes else None
