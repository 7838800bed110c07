"""A simulation of torch's CUDA caching allocator: what it would reserve for a sequence of allocations and frees.

Rules and sizes are those of torch's c10/cuda/CUDACachingAllocator.cpp with its default settings, that is without
PYTORCH_CUDA_ALLOC_CONF, and with one stream: requests are rounded up; blocks are cut from segments and merged again;
empty segments are kept, and released only when a new one does not fit.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

MIB = 2**20
ROUNDING = 512  # every request is a multiple of it
SMALL = MIB  # requests up to this size are cut from small segments
SMALL_SEGMENT = 2 * MIB
LARGE_SEGMENT = 20 * MIB
LARGE_REQUEST = 10 * MIB  # from this size on, a request gets a segment of its own size,
LARGE_ROUNDING = 2 * MIB  # a multiple of this


class Exhausted(Exception):
    """A segment does not fit under the limit, even after all empty segments were released."""


@dataclass(eq=False)
class Block:
    """A piece of a segment, with its neighbours in the segment."""

    address: int
    size: int
    small: bool
    free: bool = True
    before: Block | None = None
    after: Block | None = None


class CachingAllocator:
    """Allocates addresses, not memory. `limit`: of the reserved bytes, as set_per_process_memory_fraction sets it."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.allocated = self.reserved = 0
        self.peak_allocated = self.peak_reserved = 0
        # Free blocks as (size, address, block), sorted: the first that is large enough is the best fit, as in torch.
        self.cached: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}
        self.next_address = 0

    def allocate(self, size: int) -> Block:
        """A block for `size` bytes: the smallest free one that fits, or a new segment's. Raises Exhausted."""
        size = max(ROUNDING, _up(size, ROUNDING))
        small = size <= SMALL
        block = self._take_cached(size, small) or self._segment(size, small)
        rest = block.size - size
        # should_split in torch: a large block keeps a rest of up to SMALL, which no large request could use.
        if (rest >= ROUNDING) if small else (rest > SMALL):
            self._cut(block, size)
        block.free = False
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def free(self, block: Block) -> None:
        """Free a block. It merges with free neighbours and stays in the cache."""
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

    def _take_cached(self, size: int, small: bool) -> Block | None:
        blocks = self.cached[small]
        index = bisect_left(blocks, (size, -1))
        return blocks.pop(index)[2] if index < len(blocks) else None

    def _segment(self, size: int, small: bool) -> Block:
        own = _up(size, LARGE_ROUNDING)
        size = SMALL_SEGMENT if small else LARGE_SEGMENT if size < LARGE_REQUEST else own
        if self._exceeds_limit(size):
            self._release()
            if self._exceeds_limit(size):
                raise Exhausted
        block = Block(self.next_address, size, small)
        self.next_address += size
        self.reserved += size
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return block

    def _exceeds_limit(self, size: int) -> bool:
        return self.limit is not None and self.reserved + size > self.limit

    def _release(self) -> None:
        """Release every segment of which nothing is in use: a free block without neighbours is a whole segment."""
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
