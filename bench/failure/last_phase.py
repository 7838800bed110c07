"""The phase that a rank is in, kept where it outlives the rank: who is killed cannot say it. Imports no torch."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path

from bench.variables import RUNNER_ID

# In memory: a note in a file on a disk would wait, in the middle of a measured step, while the disk writes it out.
FOLDER = Path("/dev/shm")
SIZE = 16  # bytes, more than any phase has


def marker(launch_id: str, rank: int) -> Callable[[str], None]:
    """A function that notes the phase ("" for none) that this process is in from now on.

    It writes to memory that the kernel shares with a file.
    """
    path = FOLDER / f"resbench.{os.environ.get(RUNNER_ID, '')}.{launch_id}.{rank}.phase"
    try:
        path.write_bytes(bytes(SIZE))
        with open(path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), SIZE)
    except OSError:  # no such folder, or no room: then it is not known
        return unmarked

    def mark(phase: str) -> None:
        memory[:] = phase.encode().ljust(SIZE, b"\0")

    return mark


def unmarked(phase: str) -> None:
    """In place of a marker, where nobody would read it."""


def of(launch_id: str, rank: int) -> str | None:
    """The phase in which a rank of this machine was last; None: in none, or it is not known."""
    for path in FOLDER.glob(f"resbench.*.{launch_id}.{rank}.phase"):
        with contextlib.suppress(OSError):
            return path.read_bytes().rstrip(b"\0").decode() or None
    return None


def remove(runner_id: str = "*", launch_id: str = "*") -> None:
    """Remove what the ranks of this launch, or of all launches of this runner, have left on this machine."""
    for path in FOLDER.glob(f"resbench.{runner_id}.{launch_id}.*.phase"):
        with contextlib.suppress(OSError):
            path.unlink()
