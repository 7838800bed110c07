"""What came of comparing two run folders, and its table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reports.verdict import Change

# In the order in which a reader needs them.
VERDICTS = ("regressed", "not comparable", "inconclusive", "improved", "equivalent")


@dataclass(frozen=True)
class Comparison:
    """One metric of one trial, or a whole trial that cannot be compared: then `why`, and no metric."""

    trial: str
    verdict: str
    metric: str = ""
    base: Sequence[float] = ()
    head: Sequence[float] = ()
    paired: bool = False
    change: Change | None = None
    why: str = ""


def show(found: Sequence[Comparison], margin: float, level: float) -> None:
    """Print the verdict, the table, and how to read it."""
    console = Console(highlight=False)
    counts = {said: sum(each.verdict == said for each in found) for said in VERDICTS}
    console.print(", ".join(f"{count} {said}" for said, count in counts.items() if count), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("trial", "metric"):
        table.add_column(head, no_wrap=True)
    for head in ("base", "head", "change %", "95% interval", "could show", "launches"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    measured = sum(each.change is not None for each in found)
    each_level = level / max(1, measured)
    for each in found:
        table.add_row(*map(escape, cells(each, margin, each_level)))
    table.width = console.measure(table, options=console.options.update(width=1000)).maximum
    console.print(table, soft_wrap=True)
    console.print(
        f"base and head: medians of the launches. regressed, improved: by more than the margin of {margin:.3g}; "
        f"equivalent: within it; each beyond chance at {level:.3g} over all {measured} lines together (Holm). "
        f"could show: the change that so many launches, so far apart, show four times out of five.",
        soft_wrap=True,
    )


def cells(each: Comparison, margin: float, level: float) -> list[str]:
    """One line of the table."""
    said = f"{each.verdict}: {each.why}" if each.why else each.verdict
    if not each.base:
        return [each.trial, each.metric, "", "", "", "", "", "", said]
    before, after = statistics.median(each.base), statistics.median(each.head)
    count = f"{len(each.base)} pairs" if each.paired else f"{len(each.base)} and {len(each.head)}"
    if each.change is None:
        return [each.trial, each.metric, f"{before:.5g}", f"{after:.5g}", "", "", "", count, said]
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
        said,
    ]
