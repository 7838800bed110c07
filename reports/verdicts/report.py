"""The report of a command that judges: its comparisons and its exit code."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

from rich.console import Console

from bench.terminal import BLANK, Grid, fitting, paragraph, print_grid, room
from reports.verdicts.comparison import HEADS, OPERATION_HEADS, VERDICTS, Comparison, Reasons, cells, levels

MORE = "the last line has the command that prints all"
TOGETHER = "base -> head"
IN_BRACKETS = "In brackets, in the sentences: 95% intervals, each by itself."


@dataclass(frozen=True)
class ComparisonReport:
    """Comparisons in the order of VERDICTS, and the exit code.

    `title` says what was compared, `machine` on which machine. `margin` and `level` are shares; they are None where
    counts are compared exactly. `strict`: an inconclusive comparison fails. `accuracy_margin`: that of accuracies over
    seeds, in points; None: there are none. `reasons`: those of each compared trial. `overall`: the level of all looks
    together, if this is one of several. `cautions` are said before all else, `conclusions` say it in words. `words`:
    what `python -m reports compare` takes to compare the same, but for margin and level.
    """

    title: str
    machine: str
    comparisons: Sequence[Comparison]
    code: int
    margin: float | None = None
    level: float | None = None
    strict: bool = False
    accuracy_margin: float | None = None
    reasons: Sequence[Reasons] = ()
    overall: float | None = None
    cautions: Sequence[str] = ()
    conclusions: Sequence[str] = ()
    words: Sequence[str] = ()

    def command(self) -> str:
        """What prints this report with all columns."""
        how = ["--margin", f"{self.margin or 0.0:.6g}", "--level", f"{self.level or 0.0:.6g}", "--wide"]
        return f"python -m reports compare {shlex.join([*self.words, *how])}"

    def counts(self) -> dict[str, int]:
        """Verdict -> how many comparisons have it; verdicts that none has are left out."""
        counter = Counter(each.verdict for each in self.comparisons)
        return {verdict: counter[verdict] for verdict in VERDICTS if counter[verdict]}

    def summary(self) -> str:
        """In words: 1 regressed, 5 equivalent."""
        return ", ".join(f"{count} {verdict}" for verdict, count in self.counts().items()) or "nothing to compare"

    def margin_of(self, each: Comparison) -> float:
        """The margin of one comparison, in the unit of its change."""
        return (self.accuracy_margin if each.seeds else self.margin) or 0.0

    def level_of(self, each: Comparison) -> float:
        """The level that one comparison is tested at if no other one is significant: the strictest of Holm's."""
        return levels(self.comparisons, self.level or 0.0)[bool(each.seeds)]


def show(report: ComparisonReport, wide: bool = False) -> None:
    """Print the verdict, the table, and how to read it. `wide`: all columns, whatever the width of the terminal."""
    console = Console(highlight=False)
    for caution in report.cautions:
        paragraph(console, caution)
    paragraph(console, report.summary())
    lines = [cells(each, report.margin_of(each), report.level_of(each)) for each in report.comparisons]
    whole = Grid(HEADS, lines, left=("metric", "verdict"))
    shown, complete = set(HEADS), True
    if wide or len(fitting(whole, room(console))) == len(HEADS):
        print_grid(console, whole, wide)
    else:
        shown, complete = show_by_trial(console, lines)
    for why in report.reasons:
        complete &= show_reasons(console, why, wide)
    paragraph(console, legend(report, shown))
    for note in notes(report):
        paragraph(console, note)
    for conclusion in report.conclusions:
        paragraph(console, f"\n{conclusion}")
    if not complete:
        paragraph(console, f"\nAll columns: {report.command()}")


def legend(report: ComparisonReport, shown: Container[str]) -> str:
    """How to read the columns that are shown."""
    measured = sum(each.change is not None for each in report.comparisons)
    of_all = "" if report.overall is None else f", of {report.overall:.3g} over all looks"
    parts = []
    if "base" in shown or TOGETHER in shown:
        parts.append("base and head: medians of the launches that count.")
    if measured:
        parts.append(
            f"regressed, improved: by more than the margin of {report.margin or 0.0:.3g}; equivalent: within it. "
            f"The chance that any of the {measured} lines is wrong is at most {report.level or 0.0:.3g} (Holm{of_all})."
        )
    if measured and "could show" in shown:
        could = "the change that this many launches with this spread would show four times out of five."
        parts.append(f"could show: {could}")
    return " ".join(parts)


def show_by_trial(console: Console, lines: Sequence[Sequence[str]]) -> tuple[set[str], bool]:
    """Print a narrow table for each trial, whose name stands above it, and beneath it the reasons for its verdicts.

    Returns the headings of the columns that are shown, and whether each table has them all.
    """
    printed: set[str] = set()
    complete = True
    trials: dict[str, list[Sequence[str]]] = {}
    for line in lines:
        trials.setdefault(line[0], []).append(line)
    for trial, own in trials.items():
        paragraph(console, f"\n{trial}")
        rows, whys = [], []
        for _, metric, base, head, change, interval, shown, launches, judged in own:
            verdict, _, why = judged.partition(": ")
            whys += [why] if why and why not in whys else []
            noted = f"{verdict} [{whys.index(why) + 1}]" if why else verdict
            values = f"{base} -> {head}" if base or head else ""
            rows.append([metric, change, interval, noted, values, launches, shown])
        heads = ("metric", "change", "95% interval", "verdict", TOGETHER, "launches", "could show")
        important = ("verdict", "change", "95% interval")
        grid = Grid(heads, rows, important=important, left=("verdict",))
        print_grid(console, grid, more=MORE)
        own_heads = {heads[index] for index in fitting(grid, room(console))}
        printed, complete = printed | own_heads, complete and len(own_heads) == len(heads)
        for number, why in enumerate(whys, start=1):
            paragraph(console, f"[{number}]{BLANK}{why}", "  ")
    console.print()
    return printed, complete


def show_reasons(console: Console, why: Reasons, wide: bool) -> bool:
    """Print why a trial's results may be what they are, and return whether no column is left out."""
    summary, *lines = why.lines()
    paragraph(console, f"why, {why.trial}: {summary}")
    for line in lines:
        paragraph(console, line, "  ")
    grid = Grid(OPERATION_HEADS, [each.cells() for each in why.operations])
    if why.operations:
        paragraph(console, f"time of an operation itself, {why.about_times}", "  ")
        print_grid(console, grid, wide, MORE)
    console.print()
    return wide or len(fitting(grid, room(console))) == len(OPERATION_HEADS)


def left_out(comparisons: Sequence[Comparison]) -> list[str]:
    """Which launches of each trial do not count and why, and in which metrics if not in all that it has."""
    metrics: dict[str, list[str]] = {}
    found: dict[tuple[str, str], list[str]] = {}
    for each in comparisons:
        if each.base:
            metrics.setdefault(each.trial, []).append(each.metric)
        for out in each.left_out:
            found.setdefault((each.trial, str(out)), []).append(each.metric)
    return [
        f"left out, {trial}: launches, {why}{'' if len(own) == len(metrics[trial]) else ' in ' + ', '.join(own)}."
        for (trial, why), own in found.items()
        if trial in metrics
    ]


def notes(report: ComparisonReport) -> list[str]:
    """Which launches do not count, and how to read lines that are measured in another way than most."""
    found = left_out(report.comparisons)
    if any(each.in_turns for each in report.comparisons):
        found.append(
            "pairs in turns: both launches of a pair trained alternately, and the change is the mean over the pairs of "
            "the middle of their turns (Hodges and Lehmann; of images_per_s: a trimmed mean), not that of the medians "
            "in base and head."
        )
    elif any(each.paired and each.metric == "step_time_p50_s" for each in report.comparisons):
        found.append("The launches of a pair ran one after the other and took no turns, which tells less.")
    if report.accuracy_margin is not None and any(each.metric == "eval_accuracy" for each in report.comparisons):
        found.append(
            f"eval_accuracy: pairs of one seed, each side the mean of its launches; change: their mean difference, "
            f"with a margin of {report.accuracy_margin:.3g} points."
        )
    if report.conclusions:
        found.append(IN_BRACKETS)
    return found
