"""The result of one comparison, and its line in a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from reports.verdicts.significance import Change

# What a reader has to act on comes first.
VERDICTS = ("regressed", "changed", "not comparable", "inconclusive", "improved", "equivalent")


HEADS = ("trial", "metric", "base", "head", "change %", "95% interval", "could show", "launches", "verdict")


@dataclass(frozen=True)
class Comparison:
    """One metric of one trial; or a trial that cannot be compared, without a metric, and `why`.

    `base` and `head` hold one value per launch, in the metric's own unit. `in_turns`: the change is that of the pairs'
    turns (see turns.py), not of these values.
    """

    trial: str
    verdict: str
    metric: str = ""
    base: Sequence[float] = ()
    head: Sequence[float] = ()
    paired: bool = False
    in_turns: bool = False
    change: Change | None = None
    why: str = ""


def cells(each: Comparison, margin: float, level: float) -> list[str]:
    """One line of the table; `margin` and `level` as in ComparisonReport, for what the launches could show."""
    verdict = f"{each.verdict}: {each.why}" if each.why else each.verdict
    if not each.base:
        return [each.trial, each.metric, "", "", "", "", "", "", verdict]
    before, after = statistics.median(each.base), statistics.median(each.head)
    pairs = f"{len(each.base)} pairs{' in turns' if each.in_turns else ''}"
    count = pairs if each.paired else f"{len(each.base)} and {len(each.head)}"
    if each.change is None:
        return [each.trial, each.metric, f"{before:.5g}", f"{after:.5g}", "", "", "", count, verdict]
    low, high = (100 * (bound - 1) for bound in each.change.interval())
    shown = 100 * each.change.smallest_shown(margin, level)
    return [
        each.trial,
        each.metric,
        f"{before:.5g}",
        f"{after:.5g}",
        f"{100 * math.expm1(each.change.mean):+.2f}",
        f"{low:+.2f} .. {high:+.2f}",
        f"{shown:.3g}%" if shown < 1000 else "nothing",
        count,
        verdict,
    ]
