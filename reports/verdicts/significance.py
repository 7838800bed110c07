"""What two sets of launches say of each other: how much changed, how surely, and what they could not have shown.

The unit is the launch. A change is the logarithm of a ratio, on which the t distribution is used: of paired launches,
of their ratios; else by Welch's test, which lets the two spreads differ. Every comparison is tried for three answers,
each by a one-sided test against the margin: worse by more than it, better by more than it, within it (the two tests of
Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15). Where none can be shown, it is inconclusive:
too little data never says that nothing changed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.05
POWER = 0.8
FEWEST = 2  # launches of each side, without which there is no spread


@dataclass(frozen=True)
class Change:
    """The mean of log(head / base), its standard error, and that one's degrees of freedom."""

    mean: float
    error: float
    freedom: float

    def ratio(self) -> float:
        """head / base."""
        return _exp(self.mean)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The ratio's confidence interval at 1 - level."""
        half = _quantile(1 - level / 2, self.freedom) * self.error
        return _exp(self.mean - half), _exp(self.mean + half)

    def smallest_shown(self, margin: float, level: float) -> float:
        """The relative change that so much data would show to lie beyond the margin, four times out of five."""
        if self.error == 0:
            return margin
        from scipy import special

        # Beyond the margin, t has the noncentral distribution.
        reach = special.nctdtrinc(self.freedom, 1 - POWER, _quantile(1 - level / 2, self.freedom)) * self.error
        return _exp(math.log1p(margin) + reach) - 1

    def answer(self, margin: float, more_is_worse: bool) -> tuple[str, float]:
        """The answer that is best supported, and its two-sided p-value before any correction."""
        bound = math.log1p(margin)
        worse = self.mean if more_is_worse else -self.mean
        tries = {
            "regressed": self._above(worse - bound),
            "improved": self._above(-worse - bound),
            "equivalent": max(self._above(bound - worse), self._above(bound + worse)),
        }
        best = min(tries, key=lambda answer: tries[answer])
        return best, min(1.0, 2 * tries[best])

    def _above(self, distance: float) -> float:
        """The chance of so large a distance above a bound, were the truth on it."""
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        from scipy import special

        return float(special.stdtr(self.freedom, -distance / self.error))


def _exp(value: float) -> float:
    """Of a logarithm that may be any."""
    return math.exp(max(-700.0, min(700.0, value)))


def _quantile(share: float, freedom: float) -> float:
    from scipy import special

    return float(special.stdtrit(freedom, share))


def change(base: Sequence[float], head: Sequence[float], paired: bool) -> Change | None:
    """Of positive numbers, one a launch, in the order of their pairs if they have any; None: too few for a spread."""
    if min(len(base), len(head)) < FEWEST:
        return None
    before, after = [math.log(value) for value in base], [math.log(value) for value in head]
    if paired:
        ratios = [b - a for a, b in zip(before, after, strict=True)]
        return Change(statistics.fmean(ratios), statistics.stdev(ratios) / math.sqrt(len(ratios)), len(ratios) - 1)
    parts = [(statistics.variance(values) / len(values), len(values)) for values in (before, after)]
    square = sum(part for part, _ in parts)
    # Welch 1947, Biometrika 34.
    freedom = square**2 / sum(part**2 / (count - 1) for part, count in parts) if square else len(base) + len(head) - 2
    return Change(statistics.fmean(after) - statistics.fmean(before), math.sqrt(square), freedom)


def holm(chances: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which of these p-values stand when all are looked at together (Holm 1979, Scandinavian Journal of Statistics 6):
    that any of those does by chance alone has at most the level's probability."""
    found = [False] * len(chances)
    for done, place in enumerate(sorted(range(len(chances)), key=lambda place: chances[place])):
        if chances[place] > level / (len(chances) - done):
            break
        found[place] = True
    return found
