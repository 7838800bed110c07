"""When the gate looks at its pairs of launches, and at which level it may decide then.

The looks are fixed before the first pair. Each may spend a part of the chance of a false alarm, by the spending
function alpha * log(1 + (e - 1) t) of Lan and DeMets (1983, Biometrika 70), which resembles Pocock's boundary: `t` is
the share of the pairs that the look sees. A look is tested at what it may spend, without regard to the correlation of
the looks, so that the sum over all looks is at most alpha whatever the data is like. If the time is up, the look at the
pairs so far is the last one, and spends what is left: that the machine is slow does not depend on which commit is.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field

from bench.errors import UsageError

SHARES = (0.25, 0.5, 1.0)
# Fewer pairs have too little spread to go by.
FEWEST = 3
UNITS_S = {"": 1.0, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


@dataclass
class Looks:
    """The looks at up to `most` pairs, within `budget_s` seconds. `alpha`: the chance of a false alarm in all."""

    most: int
    alpha: float
    budget_s: float = math.inf
    began_s: float = field(default_factory=time.monotonic)
    spent: float = 0.0

    def due(self, pairs: int) -> bool:
        """Whether to look after this many pairs."""
        return pairs in {max(FEWEST, round(share * self.most)) for share in SHARES} or self.is_last(pairs)

    def is_last(self, pairs: int) -> bool:
        """Whether no further pair follows: all have been run, or another one would not end within the budget."""
        used_s = time.monotonic() - self.began_s
        return pairs >= self.most or (pairs >= FEWEST and used_s * (pairs + 1) / pairs > self.budget_s)

    def level(self, pairs: int, last: bool) -> float:
        """The level of the look after this many pairs, which is spent with it."""
        level = spending(1.0 if last else pairs / self.most, self.alpha) - self.spent
        self.spent += level
        return level


def spending(share: float, alpha: float) -> float:
    """What of `alpha` may be spent by the look that sees this share of the pairs."""
    return alpha * math.log(1 + (math.e - 1) * share)


def seconds(text: str) -> float:
    """300, 90s, 5min or 1h in seconds. Raises UsageError for anything else."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    if parts is None or parts[2] not in UNITS_S or float(parts[1]) == 0:
        raise UsageError(f"--budget is {text!r}; give a time such as 5min, 90s or 1h")
    return float(parts[1]) * UNITS_S[parts[2]]
