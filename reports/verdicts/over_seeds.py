"""Accuracies over seeds: launches that differ in their seed alone are the repetition of one trial.

One seed, launched again and again, has one accuracy, which says nothing about the next seed. Base and head are paired
by seed, each with the mean of that seed's launches, and their differences in percentage points have a t test: worse by
more than the margin, better, or within it, as in significance.py. MLPerf's reference convergence points and the records
of modded-nanogpt are judged by t tests over seeds as well.

Times and memory do not depend on the seed, so compare.py puts them together over all seeds, launch by launch.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reports.tables.summary import Row, row_of
from reports.verdicts import significance
from reports.verdicts.comparison import Comparison, LeftOut
from reports.verdicts.significance import Difference

ACCURACY = "eval_accuracy"
MARGIN = 0.5  # points
COARSE = 1.0  # points: the step of 100 images
MOST = 10_000  # seeds that `seeds_needed` looks up to
ALONE = "are of a seed that the other side lacks"
NEXT = "launch both sides with --seed 0,1,2,3,4,5,6,7"


def row_of_any_seed(record: Mapping[Any, Any]) -> Row:
    """The row of a trial with any seed: its seed is no setting but, with `repeat`, tells the trial's launches apart."""
    row = row_of(record)
    return {**row, "seed": "any", "repeat": (row["seed"], row["repeat"])}


def seed_of(row: Row) -> Any:
    """The seed of a launch that `row_of_any_seed` read; None: its row does not say."""
    return row["repeat"][0]


def accuracy(name: str, base: Sequence[Row], head: Sequence[Row]) -> list[Comparison]:
    """The comparison of one trial's launches that ended well; none if no launch has an accuracy.

    With a `change` it is still to be tested. Seeds that one side lacks are named and left out.
    """
    measured = [[row for row in rows if finite(row)] for rows in (base, head)]
    if not any(measured):
        return []
    if not all(measured):
        where = "HEAD" if measured[0] else "BASE"
        return [Comparison(name, "not comparable", ACCURACY, why=f"it was not measured in {where}")]
    if any(seed_of(row) is None for rows in measured for row in rows):
        return [Comparison(name, "not comparable", ACCURACY, why="some launches do not say their seed")]
    if missing := len(base) + len(head) - sum(map(len, measured)):  # an accuracy of NaN logits is missing
        why = f"it is missing in {missing} of {len(base) + len(head)} launches"
        return [Comparison(name, "inconclusive", ACCURACY, why=why)]
    return [of_seeds(name, *measured)]


def of_seeds(name: str, base: Sequence[Row], head: Sequence[Row]) -> Comparison:
    """The comparison of launches that all have an accuracy and a seed."""
    before, after = by_seed(base), by_seed(head)
    both = sorted(before.keys() & after.keys())
    if not both:
        why = f"no seed is in both: BASE has {listed(before)}, HEAD {listed(after)}; {NEXT}"
        return Comparison(name, "not comparable", ACCURACY, why=why)
    sides = [before[seed] for seed in both], [after[seed] for seed in both]
    change = difference(*sides, alike=outcomes(base, both) == outcomes(head, both))
    notes = [] if change else [f"only seed {both[0]} is in both; {NEXT}"]
    for where, own in (("BASE", before.keys() - after.keys()), ("HEAD", after.keys() - before.keys())):
        notes += [f"left out, since {where} alone has them: seeds {listed(own)}"] if own else []
    why = "; ".join(notes)
    counting = [sum(seed_of(row) in both for row in rows) for rows in (base, head)]
    alone = len(base) - counting[0], len(head) - counting[1]
    out = [LeftOut(ALONE, *alone)] if any(alone) else []
    found = Comparison(name, "inconclusive", ACCURACY, *sides, paired=True, change=change, why=why, seeds=both)
    return dataclasses.replace(found, left_out=out, launches=(counting[0], counting[1]))


def stop(rows: Iterable[Row]) -> bool:
    """Whether one of these launches was to end its training at its target, which then decides its last accuracy."""
    return any(row["stop_accuracy"] is not None for row in rows)


def cautions(trials: Mapping[str, Sequence[Row]]) -> list[str]:
    """What is said of trials (name -> launches that ended well) whose accuracies are not compared."""
    stopped = ", ".join(name for name, launches in trials.items() if stop(launches))
    why = "training stops at the target, which decides it; what counts is the time to the target (reports show)."
    return [f"{ACCURACY} is not compared of {stopped}: {why}"] if stopped else []


def finite(row: Row) -> bool:
    """Whether a launch has an accuracy."""
    return row[ACCURACY] is not None and math.isfinite(row[ACCURACY])


def by_seed(rows: Sequence[Row]) -> dict[int, float]:
    """Seed -> the mean accuracy of its launches, a share."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(seed_of(row), []).append(row[ACCURACY])
    return {seed: statistics.mean(values) for seed, values in found.items()}  # exact: of equal values their value


def outcomes(rows: Sequence[Row], seeds: Sequence[int]) -> set[tuple[int, float, float]]:
    """What these seeds came to. Equal to the last digit of the loss, two sides trained alike."""
    return {(seed, row[ACCURACY], row["eval_loss"]) for row in rows if (seed := seed_of(row)) in seeds}


def difference(base: Sequence[float], head: Sequence[float], alike: bool = False) -> Difference | None:
    """head - base in points, of accuracies (shares) of one seed after the other; None: fewer than two seeds.

    An accuracy counts images, so that different ones lie a step or more apart, and a few seeds may agree by chance. The
    spread is therefore never taken to be below that of rounding both sides to such steps, a variance of step^2 / 6;
    where all are equal, COARSE stands for the step. If both sides trained `alike`, nothing is left to chance.
    """
    count = len(base)
    if count < significance.FEWEST:
        return None
    if alike:
        return Difference(0.0, 0.0, count - 1)
    points = [100 * (after - before) for before, after in zip(base, head, strict=True)]
    steps = [100 * (high - low) for low, high in itertools.pairwise(sorted({*base, *head}))]
    spread = max(statistics.stdev(points), min(steps, default=COARSE) / math.sqrt(6))
    return Difference(statistics.fmean(points), spread / math.sqrt(count), count - 1)


def with_seeds_needed(each: Comparison, margin: float, level: float) -> Comparison:
    """An inconclusive comparison over seeds with the number of seeds that would decide it; any other as it is."""
    if each.verdict != "inconclusive" or each.change is None or not each.seeds:
        return each
    needed = seeds_needed(each.change, margin, level)
    shows = f"would show that nothing changed, or a loss of {2 * margin:g} points, 4 times in 5"
    if needed is None:
        why = f"not even {MOST} seeds with this spread {shows}; give a larger --accuracy-margin"
    elif needed > len(each.seeds):
        why = f"{needed} seeds with this spread {shows}"
    else:
        why = f"{needed} seeds {shows}; this one is too near the margin: give more, or another --accuracy-margin"
    return dataclasses.replace(each, why="; ".join(filter(None, (why, each.why))))


def seeds_needed(change: Difference, margin: float, level: float) -> int | None:
    """The seeds with which, at this spread, no change would be equivalent and a loss of two margins regressed.

    Each with probability POWER or more, at this level. The true change is assumed, not the one observed: with that the
    answer would only restate the p-value (Hoenig and Heisey 2001, The American Statistician 55). Both truths lie one
    margin from the bound; equivalence has two bounds to clear, and may miss either, so each gets half of 1 - POWER
    (Phillips 1990, Journal of Pharmacokinetics and Biopharmaceutics 18). None: more than MOST.
    """
    spread = change.error * math.sqrt(change.freedom + 1)
    power = 1 - (1 - significance.POWER) / 2

    def decides(count: int) -> bool:
        return significance.shift(count - 1, level, power) * spread <= margin * math.sqrt(count)

    counts = range(significance.FEWEST, MOST + 1)
    place = bisect.bisect_left(counts, True, key=decides)
    return counts[place] if place < len(counts) else None


def listed(seeds: Iterable[int]) -> str:
    """Seeds as the option --seed takes them: 0,1,10."""
    return ",".join(map(str, sorted(seeds)))
