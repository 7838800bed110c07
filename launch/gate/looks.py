"""When the gate looks at its pairs of launches: fixed before the first pair, but for the time that they may take.

What a look may spend of the chance of a false alarm follows from the share of the pairs that it sees
(reports.verdicts.significance.spent). If the time is up, the look at the pairs so far is the last one: that the machine
is slow does not depend on which commit is.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field

from bench.errors import UsageError
from launch.sweep.estimate import duration

SHARES = (0.25, 0.5, 1.0)
# Fewer pairs have too little spread to go by.
FEWEST = 3
UNITS_S = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


@dataclass
class Looks:
    """The looks at up to `most` pairs, within `budget_s` seconds. `seen`: the share of them that the last look saw."""

    most: int
    budget_s: float = math.inf
    shares: tuple[float, ...] = SHARES
    began_s: float = field(default_factory=time.monotonic)
    seen: float = 0.0

    def due(self, pairs: int) -> bool:
        """Whether to look after this many pairs."""
        at = {max(FEWEST, round(share * self.most)) for share in self.shares}
        # After a start anew, what was spent before stays spent.
        return (pairs in at and pairs / self.most > self.seen) or self.is_last(pairs)

    def is_last(self, pairs: int) -> bool:
        """Whether no further pair follows: all have been run, or another one would not end within the budget."""
        return pairs >= self.most or (pairs >= FEWEST and self.used_s() * (pairs + 1) / pairs > self.budget_s)

    def used_s(self) -> float:
        """The time since the first pair began."""
        return time.monotonic() - self.began_s

    def after_first(self, pair_s: float) -> str:
        """What is said once it is known how long a pair takes."""
        if FEWEST * pair_s <= self.budget_s:
            return f"a pair takes about {duration(pair_s)}"
        longer = f"longer than the budget of {spelled(self.budget_s)}; at least three are run"
        return f"three pairs take about {duration(FEWEST * pair_s)}, {longer}"

    def undecided(self, pairs: int) -> str:
        """Why the gate ends though the last look, after so many pairs, has not decided, and what would tell more."""
        if pairs >= self.most:
            return f"all {pairs} pairs are run, and they cannot tell; more pairs tell more"
        used = f"the budget of {spelled(self.budget_s)} is used: {pairs} of at most {self.most} pairs"
        return f"{used}, which cannot tell; a longer --budget tells more"

    def look(self, pairs: int, last: bool) -> tuple[float, float]:
        """(the share of all pairs that the look after so many sees, what the one before saw). The last one sees all."""
        before, self.seen = self.seen, 1.0 if last else pairs / self.most
        return self.seen, before


def seconds(text: str) -> float:
    """90s, 5min or 1h in seconds. Raises UsageError for anything else."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    if parts is not None and not parts[2]:
        raise UsageError(f"--budget is {text!r}, without a unit; give s, min or h, such as {text.strip()}min")
    if parts is None or parts[2] not in UNITS_S or float(parts[1]) == 0:
        raise UsageError(f"--budget is {text!r}; give a time such as 5min, 90s or 1h")
    return float(parts[1]) * UNITS_S[parts[2]]


def spelled(budget_s: float) -> str:
    """A budget as `seconds` reads it, in the largest unit of which it is a whole number: 90s, 5min, 1h."""
    unit = next((unit for unit in ("h", "min") if budget_s % UNITS_S[unit] == 0), "s")
    return f"{budget_s / UNITS_S[unit]:g}{unit}"
