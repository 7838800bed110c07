"""A table for each trial, with a line for each machine, and what they differ in beneath it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from bench.terminal import paragraph
from reports.across.machines import DEVICE, Line, Trial
from reports.across.measures import MEASURES
from reports.across.side_by_side import Across
from reports.tables import prices, table
from reports.tables.table import Sheet

LEGEND = (
    "Numbers are medians over launches, in brackets the lowest and the highest. x the first: the ratio of the "
    "launches' geometric means, in brackets its 95% interval over launches on these machines; others may differ."
)


def sheets(found: Across) -> Iterator[Sheet]:
    """The tables, in the order of the trials."""
    return (sheet(trial, found.by) for trial in found.trials)


def sheet(trial: Trial, by: str) -> Sheet:
    """One trial's table. Columns in which no line has a value are left out."""
    first = trial.lines[0]
    shown = [each for each in MEASURES if any(each.value(line, first) is not None for line in trial.lines)]
    notes: dict[str, int] = {}
    marks = [[notes.setdefault(note, len(notes)) for note in remarks(line, first)] for line in trial.lines]
    unlike = f"unlike besides: {'; '.join(trial.unlike) or 'nothing'}"
    return Sheet(
        title=trial.title,
        rows=[line.row for line in trial.lines],
        heads=["machine" if by == DEVICE else by, "launches", *(each.shown.heading for each in shown)],
        lines=[[line.machine, launches(line), *(each.cell(line, first) for each in shown)] for line in trial.lines],
        marks=marks,
        notes=list(notes),
        common=table.common([line.row for line in trial.lines if line.published is None]),
        machine=unlike + prices.line([line.row for line in trial.lines]),
    )


def launches(line: Line) -> str:
    """How many launches there are; of which so many ended well, if not all."""
    good, failed = len(line.row["each"]), len(line.failed)
    if line.published is not None:
        return ""
    return f"{good} of {good + failed} ok" if failed else str(good)


def remarks(line: Line, first: Line) -> list[str]:
    """What held the launches back, and what else makes a number weak; of a published one, what is known of it."""
    if line.published is not None:
        return [line.published.about(first.row)]
    # These are about accuracies, about single processes, and about one machine alone.
    names = ("efficiency", "published_where", "ceiling_share", "ceilings_with", "ceiling_flops_per_s", "roofline")
    blank = dict.fromkeys(names)
    rows = [*line.row["each"], *line.failed]
    return list(dict.fromkeys(note for row in rows for note in table.remarks({**line.row, **row, **blank})))


def show(found: Across, apart: bool = True, wide: bool = False) -> None:
    """Print the tables and, if asked, what stands in none."""
    console = Console(highlight=False)
    for each in sheets(found):
        table.print_sheet(console, each, wide)
    paragraph(console, LEGEND)
    if not apart or not found.apart:
        return
    console.print("\nNot side by side:")
    for one in found.apart:
        paragraph(console, f"{one.trial} on {one.machine}: {one.why}", "  ")
