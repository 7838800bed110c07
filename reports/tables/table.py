"""Puts the trials of a run in tables, one for each experiment and machine, beside the published figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console

from bench.record import experiment_lookup
from bench.record.columns import kept_apart
from bench.record.run_folder import SLOWDOWNS, shortage
from bench.record.settings import settings_columns
from bench.terminal import BLANK, Grid, paragraph, print_grid
from reports.tables import ceilings, figures, prices, scaling, summary, to_target
from reports.tables.figures import text
from reports.tables.summary import Row

APART = kept_apart("table")
# First what makes it other work, then the effective batch, which with the arm says what was trained.
STATED = sorted(kept_apart("stated"), key=lambda name: (name not in APART, name != "effective_batch"))
# What `machine_line` says in words of its own; whatever else makes it another machine, it says by name.
IN_WORDS = (
    "host",
    "device_name",
    "cpu_model",
    "cpu_count",
    "torch",
    "driver",
    "power_mode",
    "power_limit_w",
    "variables",
)
OTHERS = [name for name in kept_apart("verdict") if name in APART and name not in IN_WORDS]
# Where a table is too wide for the terminal, these columns stay first; then the others from left to right.
IMPORTANT = (
    "status",
    "images/s",
    "x the first",
    "step ms p50",
    "epoch s",
    "GPU GiB allocated",
    "host GiB per rank",
    "efficiency %",
    "eval acc %",
    "published train / eval %",
    "launches",
    "GPU GiB reserved",
    "price of an epoch",
    "J per image",
    "train acc %",
)
FEW_WINDOWS = 10  # below, a note says that the times are of few steps
WIDE_SPREAD = 0.2  # of step times; above, a note says so
THROTTLED = 0.01  # share of the time; above, the row counts as slowed down


@dataclass(frozen=True)
class Sheet:
    """The trials of one experiment on one machine as a table: `heads` has its headings, `lines` the cells of each row.

    The first `telling` columns tell the rows apart. `marks` has the indexes in `notes` of each line's notes, `common`
    the settings that all rows share.
    """

    title: str
    rows: list[Row]
    heads: list[str]
    lines: list[list[str]]
    marks: list[list[int]]
    notes: list[str]
    common: list[tuple[str, str]]
    machine: str
    telling: int = 1


def sheets(trials: pd.DataFrame, measured: Sequence[Row] = ()) -> list[Sheet]:
    """The tables of all trials. Trials that must not stand side by side (APART) are in different tables.

    `measured`: the rows of ceilings.csv.
    """
    found = []
    for _, own in trials.groupby(["experiment", "experiment_hash"], sort=False, dropna=False):
        by_arms = experiment_lookup.arm_settings(summary.row_of(own.iloc[0].to_dict()))
        apart = [column for column in APART if column not in by_arms]
        for _, group in own.groupby(apart, sort=False, dropna=False):
            rows = [summary.row_of(row) for row in group.to_dict("records")]
            rows = scaling.with_efficiency(summary.summarised(rows))
            found.append(sheet(ceilings.with_ceilings(rows, measured)))
    return found


def sheet(rows: list[Row]) -> Sheet:
    """A table of summarised rows. Columns in which no row has a value are left out."""
    settings, shown = ["arm", *varying_settings(rows)], figures.figures(rows)
    notes: dict[str, int] = {}
    notes_of_rows = [
        dict.fromkeys(note for launch in row["each"] for note in remarks({**row, **launch})) for row in rows
    ]
    return Sheet(
        title=text(rows[0]["experiment"]),
        rows=rows,
        heads=[*settings, *(figure.heading for figure in shown)],
        lines=[[*(text(row[name]) for name in settings), *(figure.cell(row) for figure in shown)] for row in rows],
        marks=[[notes.setdefault(note, len(notes)) for note in each] for each in notes_of_rows],
        notes=list(notes),
        common=common(rows),
        machine=machine_line(rows[0]) + ceilings.line(rows) + prices.line(rows),
        telling=len(settings),
    )


def common(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The settings of STATED that all of these rows share, with their values."""
    same = [name for name in STATED if len({row[name] for row in rows}) == 1]
    return [(name, text(rows[0][name])) for name in same if text(rows[0][name])]


def show(
    trials: pd.DataFrame,
    conclusions: Callable[[Sequence[Row]], Sequence[str]],
    measured: Sequence[Row] = (),
    wide: bool = False,
) -> None:
    """Print the tables, each with what its launches come to in words. `measured`: the rows of ceilings.csv.

    `wide`: every column, whatever the width of the terminal.
    """
    console = Console(highlight=False)
    for each in sheets(trials, measured):
        print_sheet(console, each, wide)
        to_target.show(console, each.rows, wide)
        for conclusion in conclusions(launches(each)):
            paragraph(console, f"{conclusion} In brackets: 95% intervals.\n")


def launches(sheet: Sheet) -> list[Row]:
    """All launches of a table."""
    return [launch for row in sheet.rows for launch in row["each"]]


def varying_settings(rows: Sequence[Row]) -> list[str]:
    """The columns that tell the rows of one table apart: all of STATED that differ, and settings that differ within an
    arm. Settings in which only the arms differ are left out, since the arm's name stands for them."""
    fields = [column.name for column in settings_columns() if column.name not in (*STATED, "arm")]
    arms = {row["arm"] for row in rows}
    within = [name for name in fields if any(len({r[name] for r in rows if r["arm"] == arm}) > 1 for arm in arms)]
    found = within + [name for name in STATED if name not in within and len({row[name] for row in rows}) > 1]
    return found + summary.telling(rows, ["arm", *found])


def print_sheet(console: Console, of: Sheet, wide: bool = False) -> None:
    """Print a table with its notes, the settings that its rows share, and its machine."""
    noted = ("".join(f"[{mark + 1}]" for mark in marks) for marks in of.marks)
    lines = [[f"{line[0]} {marks}".strip(), *line[1:]] for line, marks in zip(of.lines, noted, strict=True)]
    print_grid(console, Grid(of.heads, lines, of.telling, IMPORTANT, title=of.title), wide)
    for number, note in enumerate(of.notes, start=1):
        paragraph(console, f"[{number}]{BLANK}{note}", "  ")
    paragraph(console, ", ".join(f"{name}{BLANK}{value}" for name, value in of.common), "  ")
    paragraph(console, of.machine, "  ")
    console.print()


def remarks(row: Row) -> list[str]:
    """Warnings and notes about the row's numbers."""
    found = []
    if row["status"] != "ok":
        found.append(f"{row['status'] or 'no status'}{shortage(row)}: {text(row['error'])}")
    windows, cv = row["measured_windows"], row["step_time_cv"]
    if row["status"] == "ok" and (windows is None or windows < FEW_WINDOWS):
        found.append(f"times of fewer than {FEW_WINDOWS} measured windows")
    if cv is not None and cv > WIDE_SPREAD:
        found.append(f"step times spread by more than {WIDE_SPREAD:.0%} of their mean")
    found += disturbances(row)
    found += scaling.remarks(row)
    found += to_target.remarks(row)
    found += ceilings.remarks(row)
    found += prices.remarks(row)
    fresh = row["weights"] == "none" and row["model"] != "own"  # a model of the user's own may load its own
    if fresh and "all" not in text(row["trainable"]).split():
        found.append("the frozen part has random weights: speed and memory are real, accuracy says nothing")
    if row["features"] == "once":
        took = row["feature_pass_s"]
        after = "" if took is None else f", which the backbone had computed in {took:.4g} s"
        found.append(f"times, energy and images/s are of the head alone, on stored features{after}")
    if row["data"] == "digits" and row["augment"] == "flip":
        found.append("digits are never mirrored: there is no augmentation here")
    if row["published_where"]:
        differs = text(row["published_differs"])
        unlike = f"not comparable with the published figure ({row['published_where']}): here {differs}"
        found.append(unlike if differs else f"published by {row['published_where']}")
    return found


def disturbances(row: Row) -> list[str]:
    """What slowed the device down while the row was measured, and who shared it."""
    found = []
    share, why = row["throttled_share"], text(row["throttle_reasons"])
    if held_back(row):
        found.append(f"clocks held back for {share:.0%} of the time: {why}")
    elif share is None and why not in ("", "none"):
        found.append(f"clocks held back: {why}")
    if row["energy_source"] == "module":
        found.append("energy is the whole module's: of GPU, CPU and memory")
    if row["energy_source"] == "rapl":
        found.append("energy is of whole CPU packages: what other processes took on the machine is in it")
    if others := row["other_processes"]:
        found.append(f"measured beside {others} other process(es) on the device")
    return found


def held_back(row: Row) -> bool:
    """Whether heat or a fault slowed the device down. The power limit is no such reason: a loaded GPU is always at it.
    Rows of older versions count it in `throttled_share`."""
    reasons = set(text(row["throttle_reasons"]).split())
    return (row["throttled_share"] or 0.0) > THROTTLED and (not reasons or bool(reasons & set(SLOWDOWNS)))


def machine_line(row: Row) -> str:
    """The machine and versions that a row was made with. A group that failed early knows no device."""
    device = row["device_name"]
    if device == "cpu":
        device = f"{text(row['cpu_count'])} CPUs {text(row['cpu_model'])}"
    driver = f", driver {row['driver']}" if row["device_count"] and row["driver"] else ""
    mode = f", power mode {row['power_mode']}" if row["power_mode"] else ""
    mode += f", power limit {row['power_limit_w']:g} W" if row["power_limit_w"] else ""
    host, torch = row["host"] or "an unknown host", row["torch"] or "unknown"
    others = "".join(f", {name} {row[name]}" for name in OTHERS if row[name] is not None)
    others += f", with {row['variables']}" if row["variables"] not in (None, "none") else ""
    device = device or "device not recorded (the trial ended before it had one)"
    return f"on {host}: {device}, torch {torch}{driver}{mode}{others}"
