"""The simulated caching allocator, against what torch's rules make of requests of known size."""

import pytest

from bench.memory.caching_allocator import MIB, CachingAllocator, Exhausted


def test_a_request_takes_a_multiple_of_512_bytes() -> None:
    allocator = CachingAllocator()
    assert [allocator.allocate(size).size for size in (1, 512, 513)] == [512, 512, 1024]


@pytest.mark.parametrize(
    ("size", "reserved"),
    [(1, 2), (MIB, 2), (MIB + 1, 20), (10 * MIB - 512, 20), (10 * MIB, 10), (11 * MIB, 12), (12 * MIB, 12)],
)
def test_a_segment_is_of_the_size_that_its_request_asks_for(size: int, reserved: int) -> None:
    allocator = CachingAllocator()
    allocator.allocate(size)
    assert allocator.reserved == reserved * MIB


def test_small_and_large_requests_have_segments_of_their_own() -> None:
    allocator = CachingAllocator()
    allocator.allocate(2 * MIB)
    allocator.allocate(1024)
    assert allocator.reserved == 22 * MIB


def test_what_is_freed_is_used_again_and_stays_reserved() -> None:
    allocator = CachingAllocator()
    for _ in range(3):
        allocator.free(allocator.allocate(16 * MIB))
    assert (allocator.allocated, allocator.reserved, allocator.peak_allocated) == (0, 16 * MIB, 16 * MIB)


def test_a_large_block_with_little_left_over_is_not_cut_and_counts_in_full() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.allocate(12 * MIB))
    assert allocator.allocate(11 * MIB).size == 12 * MIB
    assert allocator.allocated == 12 * MIB


def test_the_smallest_free_block_that_holds_the_request_is_taken() -> None:
    allocator = CachingAllocator()
    large, small = allocator.allocate(40 * MIB), allocator.allocate(30 * MIB)
    allocator.free(large)
    allocator.free(small)
    allocator.allocate(25 * MIB)
    assert allocator.allocate(40 * MIB).size == 40 * MIB
    assert allocator.reserved == 70 * MIB


def test_neighbours_that_are_free_become_one_block_again() -> None:
    allocator = CachingAllocator()
    pieces = [allocator.allocate(5 * MIB) for _ in range(4)]
    assert allocator.reserved == 20 * MIB
    for number in (0, 2, 1, 3):  # on both sides of a free one, and between two
        allocator.free(pieces[number])
    assert allocator.allocate(19 * MIB + 1).size == 20 * MIB
    assert allocator.reserved == 20 * MIB


def test_segments_in_use_do_not_become_one() -> None:
    allocator = CachingAllocator()
    for piece in [allocator.allocate(20 * MIB), allocator.allocate(20 * MIB)]:
        allocator.free(piece)
    allocator.allocate(30 * MIB)
    assert allocator.reserved == 70 * MIB


def test_at_the_limit_empty_segments_are_given_back_first() -> None:
    allocator = CachingAllocator(limit=50 * MIB)
    allocator.free(allocator.allocate(30 * MIB))
    allocator.allocate(40 * MIB)
    assert (allocator.reserved, allocator.peak_reserved) == (40 * MIB, 40 * MIB)


def test_a_segment_of_which_a_part_is_in_use_cannot_be_given_back() -> None:
    allocator = CachingAllocator(limit=50 * MIB)
    pieces = [allocator.allocate(6 * MIB) for _ in range(3)]
    assert allocator.reserved == 20 * MIB
    for piece in pieces[:2]:
        allocator.free(piece)
    with pytest.raises(Exhausted):
        allocator.allocate(40 * MIB)


def test_a_request_for_all_there_is_fits_and_one_more_does_not() -> None:
    allocator = CachingAllocator(limit=20 * MIB)
    allocator.allocate(20 * MIB)
    with pytest.raises(Exhausted):
        allocator.allocate(1)
