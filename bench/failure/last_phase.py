"""The phase that a rank is in, kept where it outlives the rank: who is killed cannot say it. Imports no torch."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

SIZE = 16  # bytes, more than any phase has


def path_for(logs: Path, launch_id: str, rank: int) -> Path:
    """The file of this rank's phase."""
    return logs / f"{launch_id}.{rank}.phase"


def marker(logs: Path, launch_id: str, rank: int) -> Callable[[str], None]:
    """A function that notes the phase ("" for none) that this process is in from now on, in less than a microsecond.

    It writes to memory that the kernel shares with the file.
    """
    path = path_for(logs, launch_id, rank)
    try:
        path.write_bytes(bytes(SIZE))
        with open(path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), SIZE)
    except OSError:  # no room: then it is not known
        return unmarked

    def mark(phase: str) -> None:
        memory[:] = phase.encode().ljust(SIZE, b"\0")

    return mark


def unmarked(phase: str) -> None:
    """In place of a marker, where nobody would read it."""


def of(logs: Path, launch_id: str, rank: int) -> str | None:
    """The phase in which a rank of this machine was last; None: in none, or it is not known."""
    try:
        return path_for(logs, launch_id, rank).read_bytes().rstrip(b"\0").decode() or None
    except OSError:
        return None
