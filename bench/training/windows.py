"""Windows: which images make up each optimizer step, and which of them each process takes in which pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """One optimizer step: `images` images of all processes, in `passes` of this process.

    A pass is (start, stop), this process's positions in the epoch's order of images. It may be empty: all processes
    make the same number of passes, or collectives would hang.
    """

    index: int
    images: int
    passes: list[tuple[int, int]]


def epoch_windows(images: int, micro_batch: int, accumulate: int, processes: int, rank: int) -> Iterator[Window]:
    """The windows of one epoch as this rank sees them: each image once, and no window across the epoch's end.

    Only an epoch's last pass can be short; its images are shared evenly, and the first ranks get one more.
    """
    span = micro_batch * processes
    for index, first in enumerate(range(0, images, span * accumulate)):
        last = min(first + span * accumulate, images)
        passes = [share(start, min(start + span, last), processes, rank) for start in range(first, last, span)]
        yield Window(index, last - first, passes)


def some(windows: list[Window], limit: int | None) -> list[Window]:
    """At most `limit` of an epoch's windows: the first ones, and the last, which may be short. None: all."""
    return windows if limit is None or limit >= len(windows) else [*windows[: limit - 1], windows[-1]]


def share(start: int, stop: int, processes: int, rank: int) -> tuple[int, int]:
    """This rank's part (start, stop) of the positions start..stop. Parts differ by one image at most."""
    each, extra = divmod(stop - start, processes)
    begin = start + rank * each + min(rank, extra)
    return begin, begin + each + (rank < extra)
