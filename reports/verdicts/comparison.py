"""The result of one comparison, and its line in a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from reports.verdicts.significance import Difference

# What a reader has to act on comes first.
VERDICTS = ("regressed", "changed", "not comparable", "inconclusive", "improved", "equivalent")


HEADS = ("trial", "metric", "base", "head", "change", "95% interval", "could show", "launches", "verdict")


@dataclass(frozen=True)
class Comparison:
    """One metric of one trial; or a trial that cannot be compared, without a metric, and `why`.

    `base` and `head` hold one value per launch, in the metric's own unit; or, where `seeds` are given, one per seed in
    their order: the mean of its launches. `in_turns`: the change is that of the pairs' turns (see turns.py), not of
    these values.
    """

    trial: str
    verdict: str
    metric: str = ""
    base: Sequence[float] = ()
    head: Sequence[float] = ()
    paired: bool = False
    in_turns: bool = False
    change: Difference | None = None
    why: str = ""
    seeds: Sequence[int] = ()


def cells(each: Comparison, margin: float, level: float) -> list[str]:
    """One line of the table; margin (that of this line) and level as in ComparisonReport, for what could be shown."""
    verdict = f"{each.verdict}: {each.why}" if each.why else each.verdict
    if not each.base:
        return [each.trial, each.metric, "", "", "", "", "", "", verdict]
    before, after = statistics.median(each.base), statistics.median(each.head)
    pairs = f"{len(each.base)} pairs{' in turns' if each.in_turns else ''}"
    count = pairs if each.paired else f"{len(each.base)} and {len(each.head)}"
    count = f"{len(each.seeds)} seeds" if each.seeds else count
    if each.change is None:
        return [each.trial, each.metric, f"{before:.5g}", f"{after:.5g}", "", "", "", count, verdict]
    factor, unit = (100, "%") if each.change.UNIT == "share" else (1, f" {each.change.UNIT}")
    low, high = (factor * limit for limit in each.change.limits())
    shown = factor * each.change.smallest_shown(margin, level)
    return [
        each.trial,
        each.metric,
        f"{before:.5g}",
        f"{after:.5g}",
        f"{factor * each.change.size():+.2f}{unit}",
        f"{low:+.2f} .. {high:+.2f}",
        f"{shown:.3g}{unit}" if shown < 1000 else "nothing",
        count,
        verdict,
    ]
