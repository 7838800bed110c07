"""Which images each process puts through the model in which pass: the arithmetic that makes windows exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """One optimizer step: `images` images of all processes, in `passes` of this process.

    A pass is (start, stop): this process's positions in the epoch's order of images. It may be empty, since every
    process makes as many passes as the others.
    """

    index: int
    images: int
    passes: list[tuple[int, int]]


def epoch_windows(images: int, micro_batch: int, accumulate: int, processes: int, rank: int) -> Iterator[Window]:
    """The windows of one epoch as this rank sees them: each image once, none across the epoch's end.

    Only an epoch's last pass can be short; its images are shared out evenly, the first ranks holding one more.
    """
    span = micro_batch * processes
    for index, first in enumerate(range(0, images, span * accumulate)):
        last = min(first + span * accumulate, images)
        passes = [share(start, min(start + span, last), processes, rank) for start in range(first, last, span)]
        yield Window(index, last - first, passes)


def some(windows: list[Window], limit: int | None) -> list[Window]:
    """At most `limit` of an epoch's windows: the first ones and the last, which may be short. None: all."""
    return windows if limit is None or limit >= len(windows) else [*windows[: limit - 1], windows[-1]]


def share(start: int, stop: int, processes: int, rank: int) -> tuple[int, int]:
    """This rank's part of the positions start..stop, parts differing by one at most."""
    each, extra = divmod(stop - start, processes)
    begin = start + rank * each + min(rank, extra)
    return begin, begin + each + (rank < extra)
