"""The allocations and releases of a trial's tensors in order, and the peak memory that they add up to. No torch."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.instruments.parts import PARTS, Part
from bench.memory.caching_allocator import Block, CachingAllocator, Exhausted

Backend = Literal["cuda", "cpu"]


@dataclass(frozen=True)
class Footprint:
    """The storages of a trial's training: `sizes` in bytes and `counts_as` by storage, `order`: n allocates
    storage n - 1, -n releases it.

    `code_bytes`: on a CPU, what compiled kernels take besides.
    """

    backend: Backend
    sizes: Sequence[int]
    counts_as: Sequence[Part]
    order: Sequence[int]
    code_bytes: int = 0

    @property
    def allocated_bytes(self) -> int:
        """Peak of the tensors' memory; on CUDA in the allocator's blocks, as max_memory_allocated counts it."""
        return sum(self.parts.values())

    @property
    def reserved_bytes(self) -> int | None:
        """Peak of what CUDA's caching allocator reserves without a limit; None on a CPU, which has none."""
        return self._replayed[1] if self.backend == "cuda" else None

    @property
    def limited_bytes(self) -> int:
        """What counts against a memory limit: reserved bytes on CUDA; on a CPU allocated bytes and compiled kernels."""
        return self.allocated_bytes + self.code_bytes if self.reserved_bytes is None else self.reserved_bytes

    @functools.cached_property
    def parts(self) -> Mapping[Part, int]:
        """The parts that `allocated_bytes` is the sum of."""
        held, _, peak = self._replayed
        alive: set[int] = set()
        for event in self.order[: peak + 1]:
            alive.add(event - 1) if event > 0 else alive.discard(-event - 1)
        by_part: dict[Part, int] = dict.fromkeys(PARTS, 0)
        for number in alive:
            by_part[self.counts_as[number]] += held[number]
        return {part: size for part, size in by_part.items() if size}

    def fits(self, limit_bytes: int) -> bool:
        """Whether training fits under this limit; on CUDA, one on what the allocator may reserve."""
        if self.limited_bytes <= limit_bytes:
            return True
        # The allocator can do with less than it likes to cache, but never with less than it is asked for.
        changes = (self.sizes[event - 1] if event > 0 else -self.sizes[-event - 1] for event in self.order)
        if self.backend == "cpu" or max(itertools.accumulate(changes), default=0) > limit_bytes:
            return False
        try:
            self._allocate(limit_bytes)
        except Exhausted:
            return False
        return True

    @functools.cached_property
    def _replayed(self) -> tuple[list[int], int, int]:
        return self._allocate(None)

    def _allocate(self, limit: int | None) -> tuple[list[int], int, int]:
        """(bytes that each storage takes, peak reserved bytes, index in `order` of the peak of allocated bytes)."""
        held = list(self.sizes)
        blocks: dict[int, Block] = {}
        allocator = CachingAllocator(limit)
        allocated = most = peak = 0
        for index, event in enumerate(self.order):
            number = abs(event) - 1
            if event < 0:
                allocated -= held[number]
                if number in blocks:
                    allocator.free(blocks.pop(number))
                continue
            if self.backend == "cuda" and self.sizes[number]:
                blocks[number] = allocator.allocate(self.sizes[number])
                held[number] = blocks[number].size
            allocated += held[number]
            if allocated > most:
                most, peak = allocated, index
        return held, allocator.peak_reserved, peak


def settled(order: Sequence[int]) -> list[int]:
    """The same births and deaths, with deaths in a row sorted.

    Python's garbage collection decides their order, which differs from run to run and does not matter here.
    """
    result: list[int] = []
    for died, run in itertools.groupby(order, lambda event: event < 0):
        events = list(run)
        result += sorted(events) if died else events
    return result


def at_batch(batch: int, traced: Mapping[int, Footprint]) -> Footprint:
    """The footprint at another micro-batch than the two that were traced. `traced`: micro-batch -> footprint.

    Exact if the size of every storage is a linear function of the batch. Raises ValueError if the two differ in more
    than sizes.
    """
    (one, first), (other, second) = traced.items()
    if (first.order, first.counts_as) != (second.order, second.counts_as):
        raise ValueError(f"training at {one} and at {other} images does not do the same")
    slopes = ((b - a) / (other - one) for a, b in zip(first.sizes, second.sizes, strict=True))
    sizes = [round(a + slope * (batch - one)) for a, slope in zip(first.sizes, slopes, strict=True)]
    return Footprint(first.backend, sizes, first.counts_as, first.order, first.code_bytes)
