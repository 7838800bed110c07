"""The statistics: scipy's own tests agree, nothing is cried out by chance, and what is claimed to be seen is seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from reports.verdicts import significance

MARGIN = 0.02
BASE = [1.00, 1.03, 0.98, 1.01]
HEAD = [1.10, 1.07, 1.12, 1.09, 1.05]


def of(base: list[float], head: list[float], paired: bool = False) -> significance.Change:
    found = significance.change(base, head, paired)
    assert found is not None
    return found


def test_unpaired_launches_are_compared_as_by_welchs_test() -> None:
    found, known = of(BASE, HEAD), stats.ttest_ind(np.log(HEAD), np.log(BASE), equal_var=False)
    assert found.mean / found.error == pytest.approx(known.statistic)
    assert found.freedom == pytest.approx(known.df)
    assert found.limits() == pytest.approx(tuple(np.expm1(known.confidence_interval(0.95))))


def test_pairs_are_compared_by_their_ratios() -> None:
    """A machine that drifts by more than the change, which each pair shows all the same."""
    drift = [1.0, 1.3, 1.7, 2.2]
    base, head = drift, [value * ratio for value, ratio in zip(drift, [1.05, 1.051, 1.049, 1.05], strict=True)]
    pairs = of(base, head, paired=True)
    known = stats.ttest_1samp(np.log(head) - np.log(base), 0.0)
    assert pairs.mean / pairs.error == pytest.approx(known.statistic)
    assert pairs.limits() == pytest.approx(tuple(np.expm1(known.confidence_interval(0.95))))
    assert pairs.answer(MARGIN, True)[0] == "regressed"
    assert of(base, head).answer(MARGIN, True)[1] > significance.LEVEL


@pytest.mark.parametrize(
    ("ratio", "more_is_worse", "said"),
    [
        (1.05, True, "regressed"),
        (0.95, True, "improved"),
        (1.05, False, "improved"),
        (0.95, False, "regressed"),
        (1.001, True, "equivalent"),
        (0.999, False, "equivalent"),
    ],
)
def test_each_answer_is_found(ratio: float, more_is_worse: bool, said: str) -> None:
    base = [1.0, 1.001, 0.999, 1.0005, 0.9995]
    answer, chance = of(base, [ratio * value for value in base]).answer(MARGIN, more_is_worse)
    assert answer == said
    assert chance < 0.001


@pytest.mark.parametrize("ratio", [1.0, 1.02, 1.05])
def test_a_wide_spread_says_nothing(ratio: float) -> None:
    base = [1.0, 1.3, 0.8, 1.1]
    assert of(base, [ratio * value for value in base[::-1]]).answer(MARGIN, True)[1] > significance.LEVEL


def test_without_any_spread_a_change_is_what_it_is() -> None:
    assert of([100.0] * 2, [100.0] * 2).answer(MARGIN, True) == ("equivalent", 0.0)
    assert of([100.0] * 2, [103.0] * 2).answer(MARGIN, True) == ("regressed", 0.0)
    assert of([100.0] * 2, [103.0] * 2).limits() == pytest.approx((0.03, 0.03))
    assert of([100.0] * 2, [100.0] * 2).smallest_shown(MARGIN, 0.05) == MARGIN


@pytest.mark.parametrize(("base", "head"), [([1.0], [1.0, 1.1]), ([1.0, 1.1], [1.0]), ([1.0], [1.0])])
def test_a_single_launch_has_no_spread(base: list[float], head: list[float]) -> None:
    assert significance.change(base, head, False) is None


def test_holm_as_by_hand() -> None:
    """0.01 <= 0.05 / 4 and 0.015 <= 0.05 / 3, but 0.03 > 0.05 / 2, at which all that are larger fall too."""
    tested = significance.holm([0.03, 0.01, 0.04, 0.015], [0.05 / 4] * 4)
    assert tested == pytest.approx([0.05 / 2, 0.05 / 4, 0.05 / 2, 0.05 / 3])
    assert significance.holm([], []) == []


def test_holm_with_weights_as_by_hand() -> None:
    """0.02 has half of 0.05 by itself, and holds. Then the others have all of it, 3 to 1 to 1."""
    tested = significance.holm([0.02, 0.029, 0.011, 0.5], [0.025, 0.015, 0.005, 0.005])
    assert tested == pytest.approx([0.025, 0.03, 0.025, 0.05])


def launches(generator: np.random.Generator, count: int, mean: float = 1.0) -> list[float]:
    """Times that spread by 1%."""
    return [float(value) for value in mean * np.exp(generator.normal(0.0, 0.01, count))]


@pytest.mark.parametrize("first", [0.005, 0.025], ids=["equal parts", "half of it for one"])
@pytest.mark.parametrize("truth", [1.0, 1 + MARGIN], ids=["nothing changed", "just the margin"])
def test_alarms_are_false_in_no_more_families_than_claimed(truth: float, first: float) -> None:
    """2000 families of 10 comparisons of 5 launches each; of 5%, that many or more come of 100 + 3 sigma."""
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        answers = [
            of(launches(generator, 5), launches(generator, 5, truth)).answer(MARGIN, more_is_worse=True)
            for _ in range(10)
        ]
        tested = significance.holm([chance for _, chance in answers], [first, *[(0.05 - first) / 9] * 9])
        alarms += any(
            answer == "regressed" and chance <= at for (answer, chance), at in zip(answers, tested, strict=True)
        )
    assert alarms <= 100 + 3 * math.sqrt(2000 * 0.05 * 0.95)


def test_equal_is_not_said_of_what_lies_on_the_margin() -> None:
    generator = np.random.default_rng(1)
    changes = (of(launches(generator, 8), launches(generator, 8, 1 + MARGIN)) for _ in range(2000))
    said = sum(
        change.answer(MARGIN, True)[0] == "equivalent" and change.answer(MARGIN, True)[1] <= 0.05 for change in changes
    )
    assert said <= 50 + 3 * math.sqrt(2000 * 0.025 * 0.975)


def test_what_is_said_could_be_shown_is_shown_four_times_out_of_five() -> None:
    generator = np.random.default_rng(2)
    known = significance.Change(0.0, 0.01 * math.sqrt(2 / 8), 14).smallest_shown(MARGIN, significance.LEVEL)
    assert 0.03 < known < 0.05
    seen = 0
    for _ in range(2000):
        answer, chance = of(launches(generator, 8), launches(generator, 8, 1 + known)).answer(MARGIN, True)
        seen += answer == "regressed" and chance <= significance.LEVEL
    assert 0.76 < seen / 2000 < 0.84
