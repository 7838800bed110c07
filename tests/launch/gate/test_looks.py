"""The looks of the gate: how many, when, and that they spend no more than they may."""

from __future__ import annotations

import math
import random

import pytest

from bench.errors import UsageError
from launch.gate import commits
from launch.gate.looks import Looks, seconds, spelled
from reports.verdicts import significance

LEVEL = float(commits.LEVEL)


def run(looks: Looks) -> list[tuple[int, float, float]]:
    """(pairs, what the look sees, what the one before saw) of each look."""
    found = []
    for pairs in range(1, looks.most + 1):
        if looks.due(pairs):
            last = looks.is_last(pairs)
            found.append((pairs, *looks.look(pairs, last)))
            if last:
                break
    return found


@pytest.mark.parametrize(("most", "at"), [(32, [8, 16, 32]), (12, [3, 6, 12]), (5, [3, 5]), (3, [3])])
def test_the_looks_spend_exactly_the_chance_of_a_false_alarm(most: int, at: list[int]) -> None:
    found = run(Looks(most))
    assert [pairs for pairs, _, _ in found] == at
    assert [before for _, _, before in found] == [0.0, *(share for _, share, _ in found[:-1])]
    assert found[-1][1] == 1.0
    levels = [significance.spent(share, LEVEL) - significance.spent(before, LEVEL) for _, share, before in found]
    assert math.isclose(sum(levels), LEVEL)
    assert min(levels) > 0


def test_the_levels_are_those_of_the_spending_function() -> None:
    """Kim and DeMets 1987: alpha t^2, at a quarter of the pairs a sixteenth, at a half a quarter."""
    assert [significance.spent(share, 0.016) for share in (0, 0.25, 0.5, 1)] == pytest.approx([0, 0.001, 0.004, 0.016])


def test_when_the_time_is_up_the_last_look_spends_the_rest() -> None:
    looks = Looks(32, budget_s=1000.0)
    looks.began_s -= 700  # 10 pairs took 70 s each; five more would take too long, four fit
    assert not looks.is_last(10)
    looks.began_s -= 280
    assert looks.is_last(14)
    assert looks.due(14)
    assert looks.look(14, True) == (1.0, 0.0)


def test_a_start_anew_looks_no_earlier_than_before() -> None:
    """What the looks have spent stays spent: the next one sees more than the last one did."""
    looks = Looks(32)
    assert looks.look(8, False) == (0.25, 0.0)
    assert [pairs for pairs in range(1, 33) if looks.due(pairs)] == [16, 32]


def test_too_few_pairs_are_no_last_look() -> None:
    looks = Looks(32, budget_s=1.0)
    looks.began_s -= 100
    assert [looks.is_last(pairs) for pairs in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize(("text", "value"), [("300s", 300), ("90s", 90), ("5min", 300), ("1.5 h", 5400)])
def test_a_time_is_read(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["5", "1.5", "300 "])
def test_a_number_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"is '{text}', without a unit; give s, min or h, such as {text.strip()}min"):
        seconds(text)


@pytest.mark.parametrize("text", ["0.5s", "90s", "5min", "90min", "1h", "2h"])
def test_a_budget_is_said_as_it_is_read(text: str) -> None:
    assert spelled(seconds(text)) == text


@pytest.mark.parametrize(
    ("pair_s", "budget_s", "said"),
    [
        (240.0, 300.0, "three pairs take about 12 min, longer than the budget of 5min; at least three are run"),
        (100.0, 300.0, "a pair takes about 2 min"),
        (12.0, math.inf, "a pair takes about 12 s"),
    ],
)
def test_after_the_first_pair_it_says_how_long_one_takes(pair_s: float, budget_s: float, said: str) -> None:
    assert Looks(32, budget_s).after_first(pair_s) == said


def test_what_ends_a_gate_that_cannot_tell_is_said() -> None:
    looks = Looks(32, 60.0)
    used = "the budget of 1min is used: 5 of at most 32 pairs, which cannot tell; a longer --budget tells more"
    assert looks.undecided(5) == used
    assert looks.undecided(32) == "all 32 pairs are run, and they cannot tell; more pairs tell more"


@pytest.mark.parametrize("text", ["", "0", "5 weeks", "-3min", "min", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--budget is"):
        seconds(text)


def alarm(draw: random.Random, change: float, lines: int = 1, most: int = 32) -> bool:
    """Whether a gate would call any of so many metrics regressed, at any of its looks.

    Pairs change by this mean and spread by 0.6%, in each metric by itself.
    """
    ratios = [[draw.gauss(change, 0.006) for _ in range(most)] for _ in range(lines)]
    for pairs, share, before in run(Looks(most)):
        level = significance.spent(share, LEVEL) - significance.spent(before, LEVEL)
        answers = [significance.of_pairs(each[:pairs]).answer(0.01, more_is_worse=True) for each in ratios]
        tested = significance.holm([chance for _, chance in answers], [level / lines] * lines)
        holds = [chance <= at for (_, chance), at in zip(answers, tested, strict=True)]
        if ("regressed", True) in zip([answer for answer, _ in answers], holds, strict=True):
            return True
        if all(holds):
            return False
    return False


@pytest.mark.parametrize("lines", [1, 4])
def test_a_change_on_the_margin_is_called_worse_in_one_per_cent_at_most(lines: int) -> None:
    """The hardest case: a change of exactly the margin, which is to pass."""
    draw = random.Random(0)
    alarms = sum(alarm(draw, math.log1p(0.01), lines) for _ in range(3000))
    assert alarms <= 0.01 * 3000 + 3 * math.sqrt(30)


def test_two_per_cent_are_found_where_pairs_spread_by_six_tenths() -> None:
    draw = random.Random(1)
    found = sum(alarm(draw, math.log1p(0.02)) for _ in range(300))
    assert found >= 0.95 * 300
