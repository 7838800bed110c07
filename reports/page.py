"""Writes a run as one HTML page. It needs no network and no server; its few lines of script sort and filter."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from bench.called import as_called
from bench.record import experiment_lookup
from bench.record.csvfile import write_whole
from reports import read
from reports.across import page as across
from reports.across import side_by_side
from reports.charts import NARROW, draw
from reports.frame import render
from reports.tables import published, summary, table, to_target
from reports.tables.prices import Prices, with_prices
from reports.tables.published_table import beside, highlights
from reports.tables.summary import Row
from reports.tables.table import Sheet
from reports.verdicts import arms

STUDY = "study.toml"  # the copy of a study in its run folder
REPLACED = "# Not as it stands here: run with "  # its first line, if options replaced some of its settings


def write(folder: Path, out: Path, target: float | None = None, prices: Prices | None = None) -> None:
    """Write the page of a run folder, with what this accuracy took; None: what the trials' own targets did.

    Raises UsageError if no run wrote it, if no trial has ended, if a price is of a device that it has not, or if `out`
    cannot be written.
    """
    trials, lost_trials = read.ended_trials(folder)
    epochs, lost_epochs = read.epochs(folder)
    steps, lost_steps = read.steps(folder)
    trials = with_prices(to_target.with_target(trials, epochs, target), prices)
    found = table.sheets(trials, read.ceilings(folder))
    sections = [{**section(sheet, epochs, steps), "anchor": n} for n, sheet in enumerate(found, start=1)]
    several = side_by_side.of_run(trials, folder)
    lost = {"trials": lost_trials, "epochs": lost_epochs, "steps": lost_steps}
    page = render(
        "page.html",
        name=folder.absolute().name,
        sections=sections,
        across=across.section(several) if several else None,
        overview=overview([summary.row_of(row) for row in trials.to_dict("records")]),
        study=study_command(folder),
        lost=", ".join(each for file, own in lost.items() for each in read.in_words(own, file)),
        rule=published.RULE,
    )
    write_whole(out, page)


def study_command(folder: Path) -> str:
    """The shell command that runs the folder's study again; "": the folder is not a study's."""
    path = folder / STUDY
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
        first = file.readline(2**16)
        words = shlex.split(first.removeprefix(REPLACED)) if first.startswith(REPLACED) else []
        return as_called(f"python -m launch run {shlex.join([str(path), *words])}")
    return ""


def overview(rows: Sequence[Row]) -> dict[str, Any]:
    """The numbers at the head of the page: launches, statuses, machines, commits."""
    statuses = [str(row["status"]) for row in rows]
    return {
        "launches": len(rows),
        "experiments": len({row["experiment"] for row in rows}),
        "statuses": {status: statuses.count(status) for status in dict.fromkeys(statuses)},
        "machines": list(dict.fromkeys(table.machine_line(row) for row in rows)),
        "commits": list(dict.fromkeys(str(row["commit"]) for row in rows if row["commit"])),
        "began": min((str(row["started_at"]) for row in rows if row["started_at"]), default=""),
    }


def section(sheet: Sheet, epochs: pd.DataFrame, steps: pd.DataFrame) -> dict[str, Any]:
    """One experiment on one machine: its question, tables, charts and commands."""
    counts = eval_counts(epochs)
    verdicts = [published.reproductions(row, counts.get(row["launch_id"])) for row in sheet.rows]
    charts = draw(sheet.rows, epochs, steps)
    return {
        "sheet": sheet,
        "experiment": str(sheet.rows[0]["experiment"]),
        "question": experiment_lookup.question(sheet.rows[0]),
        "statuses": list(dict.fromkeys(str(row["status"]) for row in sheet.rows)),
        "lines": list(zip(sheet.rows, sheet.lines, sheet.marks, map(published.worst, verdicts), strict=True)),
        "beside": beside(sheet.rows, verdicts),
        "sources": list(dict.fromkeys(row["published_where"] for row in sheet.rows if row["published_where"])),
        "glance": highlights(sheet, verdicts),
        "targets": to_target.tables(sheet.rows),
        "conclusions": arms.conclusions(table.launches(sheet)),
        "charts": [(chart, Markup(chart.svg()), Markup(chart.svg(NARROW))) for chart in charts],
        "commands": list(dict.fromkeys(filter(None, map(command, sheet.rows)))),
    }


def command(row: Row) -> str:
    """The shell command that runs a trial again, as often as it ran; "": this checkout has no such arm."""
    once = experiment_lookup.command(row) or ""
    return f"{once} --repeats {len(row['each'])}" if once and len(row["each"]) > 1 else once


def eval_counts(epochs: pd.DataFrame) -> dict[str, int]:
    """Launch -> the number of images that it was evaluated on."""
    evaluated = epochs[epochs["eval_images"].notna()]
    counts = zip(evaluated["launch_id"], evaluated["eval_images"], strict=True)
    return {str(launch): int(count) for launch, count in counts}
