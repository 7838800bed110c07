"""The spread between pairs, taken apart: planted spreads come out as what they are."""

from __future__ import annotations

import random

import pytest

from .spread import error_of_middle, line, spread


def planted(between: float, within: float, draw: random.Random) -> list[list[float]]:
    """The log ratios of 97 turns in each of 200 pairs, which differ by so much."""
    changes = [draw.gauss(0, between) for _ in range(200)]
    return [[draw.gauss(change, within) for _ in range(97)] for change in changes]


def test_what_launches_differ_by_is_told_from_what_turns_do() -> None:
    draw = random.Random(0)
    cells = [cell.strip() for cell in line("1 | step time", planted(0.01, 0.05, draw), draw).split("|")[1:-1]]
    assert cells[:3] == ["1", "step time", "97"]
    turn, between, within, launches = (float(cell.rstrip("%")) / 100 for cell in cells[3:])
    assert turn == pytest.approx(0.05, rel=0.1)
    assert within == pytest.approx(1.023 * 0.05 / 97**0.5, rel=0.15)  # sqrt(pi / 3) times that of a mean
    assert launches == pytest.approx(0.01, rel=0.15)
    assert between == pytest.approx((within**2 + launches**2) ** 0.5, rel=0.02)


def test_where_launches_do_not_differ_none_is_seen() -> None:
    draw = random.Random(1)
    launches = line("2 | CPU time", planted(0.0, 0.05, draw), draw).split("|")[-2].strip()
    assert launches == "none seen" or float(launches.rstrip("%")) < 0.25


def test_an_outlier_is_not_in_the_spread_of_turns() -> None:
    draw = random.Random(2)
    values = [draw.gauss(0, 0.02) for _ in range(99)]
    assert spread([*values, 5.0]) == pytest.approx(spread(values), rel=0.1)
    assert error_of_middle([*values, 5.0], draw) < 0.01
