"""What CUDA's caching allocator would reserve for a sequence of allocations and frees, without a GPU.

The rules and sizes of torch's c10/cuda/CUDACachingAllocator.cpp with its default settings (PYTORCH_CUDA_ALLOC_CONF
unset, one stream): requests are rounded up, blocks are cut from segments and merged again, segments are kept when they
are empty, and given back only when there is no room for a new one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

MIB = 2**20
ROUNDING = 512
SMALL = MIB  # requests up to this size are cut from small segments
SMALL_SEGMENT = 2 * MIB
LARGE_SEGMENT = 20 * MIB
LARGE_REQUEST = 10 * MIB  # from this size on, a request gets a segment of its own
LARGE_ROUNDING = 2 * MIB


class Exhausted(Exception):
    """A segment does not fit under the limit, even with all empty segments given back."""


@dataclass(eq=False)
class Block:
    """A piece of a segment, between its neighbours there."""

    address: int
    size: int
    small: bool
    free: bool = True
    before: Block | None = None
    after: Block | None = None


class CachingAllocator:
    """Allocates addresses, not memory. `limit` caps the reserved bytes, as set_per_process_memory_fraction does."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.allocated = self.reserved = 0
        self.peak_allocated = self.peak_reserved = 0
        self.cached: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}
        self.end = 0

    def allocate(self, size: int) -> Block:
        """A block for `size` bytes, the smallest free one that holds them or a new segment's. Exhausted: no room."""
        size = max(ROUNDING, _up(size, ROUNDING))
        small = size <= SMALL
        block = self._cached(size, small) or self._segment(size, small)
        rest = block.size - size
        if rest >= ROUNDING if small else rest > SMALL:
            self._cut(block, size)
        block.free = False
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def free(self, block: Block) -> None:
        """Give a block back; it merges with free neighbours and stays in the cache."""
        self.allocated -= block.size
        block.free = True
        before, after = block.before, block.after
        if before is not None and before.free:
            self._uncache(before)
            block.address, block.size, block.before = before.address, block.size + before.size, before.before
            if block.before is not None:
                block.before.after = block
        if after is not None and after.free:
            self._uncache(after)
            block.size, block.after = block.size + after.size, after.after
            if block.after is not None:
                block.after.before = block
        self._cache(block)

    def _cached(self, size: int, small: bool) -> Block | None:
        blocks = self.cached[small]
        at = bisect_left(blocks, (size, -1))
        return blocks.pop(at)[2] if at < len(blocks) else None

    def _segment(self, size: int, small: bool) -> Block:
        alone = _up(size, LARGE_ROUNDING)
        size = SMALL_SEGMENT if small else LARGE_SEGMENT if size < LARGE_REQUEST else alone
        if self._over(size):
            self._release()
            if self._over(size):
                raise Exhausted
        block = Block(self.end, size, small)
        self.end += size
        self.reserved += size
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return block

    def _over(self, size: int) -> bool:
        return self.limit is not None and self.reserved + size > self.limit

    def _release(self) -> None:
        """Give back every segment of which nothing is in use."""
        for small, blocks in self.cached.items():
            empty = [block for _, _, block in blocks if block.before is None and block.after is None]
            self.reserved -= sum(block.size for block in empty)
            gone = set(map(id, empty))
            self.cached[small] = [entry for entry in blocks if id(entry[2]) not in gone]

    def _cut(self, block: Block, size: int) -> None:
        rest = Block(block.address + size, block.size - size, block.small, before=block, after=block.after)
        if rest.after is not None:
            rest.after.before = rest
        block.size, block.after = size, rest
        self._cache(rest)

    def _cache(self, block: Block) -> None:
        insort(self.cached[block.small], (block.size, block.address, block))

    def _uncache(self, block: Block) -> None:
        blocks = self.cached[block.small]
        del blocks[bisect_left(blocks, (block.size, block.address))]


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
