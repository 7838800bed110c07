"""What a footprint says of storages whose lives are written down here."""

from typing import Any

import pytest

from bench.memory.caching_allocator import MIB
from bench.memory.footprint import Footprint, at_batch, settled

# Weights of 3 MiB, an input of 2 that dies, then activations of 4: never more than 7 at once.
LIVES: tuple[Any, ...] = ((3 * MIB, 2 * MIB, 4 * MIB), ("weights", "input", "activations"), (1, 2, -2, 3))


def test_the_peak_is_of_what_lives_at_once_and_its_parts_add_up_to_it() -> None:
    footprint = Footprint("cpu", *LIVES)
    assert footprint.allocated_bytes == 7 * MIB
    assert footprint.parts == {"weights": 3 * MIB, "activations": 4 * MIB}
    assert footprint.reserved_bytes is None


def test_on_cuda_blocks_count_and_reserved_is_what_the_allocator_holds() -> None:
    footprint = Footprint("cuda", (MIB + 1, 1), ("weights", "input"), (1, 2))
    assert footprint.allocated_bytes == MIB + 512 + 512
    assert footprint.reserved_bytes == 22 * MIB


@pytest.mark.parametrize(("limit", "fits"), [(7 * MIB, True), (7 * MIB - 1, False)])
def test_on_a_cpu_the_peak_has_to_fit(limit: int, fits: bool) -> None:
    assert Footprint("cpu", *LIVES).fits(limit) is fits


@pytest.mark.parametrize(("limit", "fits"), [(50, True), (40, True), (39, False)])
def test_on_cuda_it_fits_if_it_does_once_cached_memory_is_given_back(limit: int, fits: bool) -> None:
    footprint = Footprint("cuda", (30 * MIB, 40 * MIB), ("input", "activations"), (1, -1, 2))
    assert footprint.reserved_bytes == 70 * MIB
    assert footprint.fits(limit * MIB) is fits


def test_another_batch_lies_on_the_line_through_two() -> None:
    two = Footprint("cpu", (100, 20), ("weights", "activations"), (1, 2))
    four = Footprint("cpu", (100, 40), ("weights", "activations"), (1, 2))
    assert at_batch(64, {2: two, 4: four}).sizes == [100, 640]


def test_trainings_that_differ_in_more_than_sizes_have_no_line() -> None:
    one = Footprint("cpu", (1, 1), ("weights", "input"), (1, 2))
    with pytest.raises(ValueError, match="does not do the same"):
        at_batch(8, {2: one, 4: Footprint("cpu", (1, 1), ("weights", "input"), (1, -1, 2))})


def test_deaths_that_follow_one_another_have_one_order_and_births_keep_theirs() -> None:
    assert settled([1, 3, 2, -1, -3, 4, -2, -4]) == [1, 3, 2, -3, -1, 4, -4, -2]
