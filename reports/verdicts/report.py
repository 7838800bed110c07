"""All that a command which judges has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.terminal import wide
from reports.verdicts.comparison import HEADS, VERDICTS, Comparison, cells


@dataclass(frozen=True)
class ComparisonReport:
    """Comparisons, what matters most first, and the exit code that they come to.

    `title` is what was compared, `machine` where; `margin` and `level` are None where counts are compared exactly.
    `strict`: what is inconclusive fails.
    """

    title: str
    machine: str
    found: Sequence[Comparison]
    code: int
    margin: float | None = None
    level: float | None = None
    strict: bool = False

    def counts(self) -> dict[str, int]:
        """Verdict -> how many comparisons have it, those that none has left out."""
        found = {said: sum(each.verdict == said for each in self.found) for said in VERDICTS}
        return {said: count for said, count in found.items() if count}

    def summary(self) -> str:
        """In words."""
        return ", ".join(f"{count} {said}" for said, count in self.counts().items()) or "nothing to compare"

    def each_level(self) -> float:
        """The share of false alarms that one comparison may have; Holm's smallest."""
        return (self.level or 0.0) / max(1, sum(each.change is not None for each in self.found))


def show(report: ComparisonReport) -> None:
    """Print the verdict, the table, and how to read it."""
    console = Console(highlight=False)
    console.print(report.summary(), soft_wrap=True)
    margin, level = report.margin or 0.0, report.level or 0.0
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in HEADS:
        table.add_column(head, justify="left" if head in ("trial", "metric", "verdict") else "right", no_wrap=True)
    for each in report.found:
        table.add_row(*map(escape, cells(each, margin, report.each_level())))
    wide(console, table)
    measured = sum(each.change is not None for each in report.found)
    console.print(
        f"base and head: medians of the launches. regressed, improved: by more than the margin of {margin:.3g}; "
        f"equivalent: within it; each beyond chance at {level:.3g} over all {measured} lines together (Holm). "
        f"could show: the change that so many launches, so far apart, show four times out of five.",
        soft_wrap=True,
    )
