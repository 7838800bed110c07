"""The statistics of a comparison: how large a change is, how sure that is, and which change would have gone unnoticed.

One launch is one observation. A change is the mean of log(head / base), with a t test: of paired launches on their
ratios, of others Welch's test, which allows the two sides unequal spreads. Three one-sided tests against the margin
follow: worse by more than the margin, better by more than it, and within it (the two tests of Schuirmann 1987, Journal
of Pharmacokinetics and Biopharmaceutics 15). If none is significant, the comparison is inconclusive: too little data
never means that nothing changed. An accuracy over seeds is compared by its difference instead, in points.

Who looks several times while launches are added, and ends as soon as a look decides, has several chances of being
wrong. Each look may spend a part of what all may (Lan and DeMets 1983, Biometrika 70), by the spending function
alpha * t^2 (Kim and DeMets 1987, Biometrika 74): `t` is the share of the launches that the look sees. That leaves most
for the last look, and a large change shows at the first one all the same. A look is tested at what it may spend,
without regard to the correlation of the looks, so that the sum over all looks is at most alpha whatever the data is
like.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

LEVEL = 0.05
POWER = 0.8  # a change of the size that "could show" states is found four times out of five
FEWEST = 2  # launches of each side; fewer have no spread


@dataclass(frozen=True)
class Difference:
    """The mean of head - base, its standard error, and the degrees of freedom of that error; all in `UNIT`."""

    mean: float
    error: float
    freedom: float
    UNIT: ClassVar[str] = "points"

    def size(self) -> float:
        """The difference, in UNIT."""
        return self._shown(self.mean)

    def limits(self, level: float = LEVEL) -> tuple[float, float]:
        """The confidence limits of `size` at 1 - level."""
        half = _quantile(1 - level / 2, self.freedom) * self.error
        return self._shown(self.mean - half), self._shown(self.mean + half)

    def smallest_shown(self, margin: float, level: float) -> float:
        """The smallest size that this data would show to be beyond the margin, with probability POWER."""
        if self.error == 0:
            return margin
        return self._shown(self._bound(margin) + shift(self.freedom, level, POWER) * self.error)

    def answer(self, margin: float, more_is_worse: bool) -> tuple[str, float]:
        """The answer with the smallest p-value, and that p-value doubled: two-sided, before any correction."""
        bound = self._bound(margin)
        worse = self.mean if more_is_worse else -self.mean
        tries = {
            "regressed": self._above(worse - bound),
            "improved": self._above(-worse - bound),
            "equivalent": max(self._above(bound - worse), self._above(bound + worse)),
        }
        best = min(tries, key=lambda answer: tries[answer])
        return best, min(1.0, 2 * tries[best])

    def _above(self, distance: float) -> float:
        """The p-value of this distance above a bound: its probability if the true change lay on the bound."""
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        from scipy import special

        return float(special.stdtr(self.freedom, -distance / self.error))

    def _bound(self, margin: float) -> float:
        """A margin in UNIT, on the scale of `mean`."""
        return margin

    def _shown(self, value: float) -> float:
        """A value on the scale of `mean`, in UNIT."""
        return value


@dataclass(frozen=True)
class Change(Difference):
    """The mean of log(head / base), its standard error, and its degrees of freedom; in UNIT it is head / base - 1."""

    UNIT: ClassVar[str] = "share"

    def _bound(self, margin: float) -> float:
        return math.log1p(margin)

    def _shown(self, value: float) -> float:
        return math.expm1(max(-700.0, min(700.0, value)))  # cut where a float would overflow


def shift(freedom: float, level: float, power: float) -> float:
    """How many standard errors beyond a bound the truth has to lie to be shown, at this level, with this probability.

    Then t has the noncentral distribution with that shift.
    """
    from scipy import special

    return float(special.nctdtrinc(freedom, 1 - power, _quantile(1 - level / 2, freedom)))


def _quantile(share: float, freedom: float) -> float:
    from scipy import special

    return float(special.stdtrit(freedom, share))


def change(base: Sequence[float], head: Sequence[float], paired: bool) -> Change | None:
    """The change between positive numbers, one per launch and, if paired, in the order of the pairs; None: too few."""
    if min(len(base), len(head)) < FEWEST:
        return None
    before, after = [math.log(value) for value in base], [math.log(value) for value in head]
    if paired:
        return of_pairs([b - a for a, b in zip(before, after, strict=True)])
    parts = [(statistics.variance(values) / len(values), len(values)) for values in (before, after)]
    square = sum(part for part, _ in parts)
    # Degrees of freedom after Welch 1947, Biometrika 34.
    freedom = square**2 / sum(part**2 / (count - 1) for part, count in parts) if square else len(base) + len(head) - 2
    return Change(statistics.fmean(after) - statistics.fmean(before), math.sqrt(square), freedom)


def of_pairs(ratios: Sequence[float]) -> Change:
    """The change of pairs whose log(head / base) these are; two or more."""
    return Change(statistics.fmean(ratios), statistics.stdev(ratios) / math.sqrt(len(ratios)), len(ratios) - 1)


def spent(share: float, alpha: float) -> float:
    """What of `alpha` may be spent until the look that sees this share of the launches, that look included."""
    return alpha * share**2


def holm(chances: Sequence[float], levels: Sequence[float]) -> list[float]:
    """The level at which each of these p-values is tested, together: significant is what is at most that.

    `levels`: what each may spend by itself. What significant ones have spent is the others' as well, in proportion
    (Holm 1979, Scandinavian Journal of Statistics 6, whose test with weights this is). The probability that chance
    alone makes any of them significant is at most the sum of the levels.
    """
    tested, whole = list(levels), math.fsum(levels)
    rest, fell = whole, False
    for index in sorted(range(len(chances)), key=lambda index: chances[index] / levels[index]):
        tested[index] = levels[index] * whole / rest
        fell = fell or chances[index] > tested[index]
        rest -= 0.0 if fell else levels[index]
    return tested
