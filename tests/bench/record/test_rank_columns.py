"""Which rank is named as slow: ranks written by hand, and the rule that the column states."""

from __future__ import annotations

from typing import Any

import pytest

from bench.record.rank_columns import RANKS, SLOWEST, slowest

GPU = "GPU-5f6e1a52-1111-2222-3333-444455556666"


def rank(p50: float, p90: float, windows: int = 20, **more: Any) -> dict[str, Any]:
    """A row of ranks.csv."""
    where = {"host": "a", "device_index": None, "device_uuid": None}
    return {"windows": windows, "own_step_time_p50_s": p50, "own_step_time_p90_s": p90, **where, **more}


def usual(count: int, p90: float = 0.101) -> list[dict[str, Any]]:
    """Ranks that take 100 ms."""
    return [rank(0.1, p90) for _ in range(count)]


def test_a_rank_that_is_slower_than_the_others_ever_are_is_named_with_its_excess() -> None:
    """Over the median of the other ranks, not of all: a slow rank is no part of what it is held against."""
    found = slowest([*usual(3), rank(0.131, 0.14, host="b", device_index=3, device_uuid=GPU), *usual(4)])
    assert found == {
        "slowest_rank": 3,
        "slowest_rank_excess": pytest.approx(0.31),
        "slowest_rank_device": "b, GPU 3",
    }


def test_of_two_ranks_the_excess_is_over_the_other() -> None:
    found = slowest([rank(0.3, 0.31), rank(0.1, 0.11)])
    assert (found["slowest_rank"], found["slowest_rank_excess"]) == (0, pytest.approx(2.0))


@pytest.mark.parametrize(
    ("ranks", "excess"),
    [
        ([*usual(2), rank(0.12, 0.13), rank(0.1, 0.12)], 0.2),  # one window in ten of another rank is as slow
        ([*usual(2), rank(0.12, 0.12), rank(0.119, 0.125)], 0.2),  # another one is nearly as slow
        ([rank(0.1, 0.1, 9), rank(0.2, 0.2, 9)], 1.0),  # of too few windows
        ([rank(0.1, 0.1), rank(0.1009, 0.1009)], 0.009),  # by less than the note's two decimals
        (usual(4), 0.0),
    ],
    ids=["within the spread", "two slow ones", "nine windows", "by 0.9%", "equal"],
)
def test_a_rank_that_does_not_stand_apart_is_not_named_and_its_excess_is_still_told(
    ranks: list[dict[str, Any]], excess: float
) -> None:
    found = slowest(ranks)
    assert set(found) == {"slowest_rank_excess"}
    assert found["slowest_rank_excess"] == pytest.approx(excess)


def test_ten_windows_and_one_per_cent_are_enough() -> None:
    assert slowest([rank(0.1, 0.1, 10), rank(0.1011, 0.1011, 10)])["slowest_rank"] == 1


@pytest.mark.parametrize(
    "ranks",
    [[], [rank(0.1, 0.1)], [{"windows": 0}, {"windows": 0}], [rank(0.1, 0.1), {"windows": 20}]],
    ids=["none", "one process", "no window", "one of them unknown"],
)
def test_where_nothing_can_be_compared_nothing_is_said(ranks: list[dict[str, Any]]) -> None:
    assert slowest(ranks) == {}


def test_without_nvml_s_number_a_gpu_is_named_by_its_uuid_and_a_cpu_by_its_machine() -> None:
    assert slowest([*usual(1), rank(0.2, 0.2, device_uuid=GPU)])["slowest_rank_device"] == f"a, {GPU}"
    assert slowest([*usual(1), rank(0.2, 0.2)])["slowest_rank_device"] == "a, CPU"


def test_what_is_told_has_columns() -> None:
    assert set(slowest([*usual(1), rank(0.2, 0.2)])) == {column.name for column in SLOWEST}
    assert set(rank(0.1, 0.1)) <= {column.name for column in RANKS}
