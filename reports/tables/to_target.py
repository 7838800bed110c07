"""What a target accuracy took, over the seeds of each trial, also for a target that is asked for afterwards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd
from rich.console import Console

from bench.column import digits
from bench.record import to_target
from bench.terminal import Grid, paragraph, print_grid
from reports.tables import prices, summary
from reports.tables.summary import Row
from reports.typed import UNREADABLE

TIME = "time_to_target_s"
# Heading -> the column that is shown under it, in this order.
FIGURES = {
    "epochs": "epochs_to_target",
    "s of\ntraining": TIME,
    "s with\nevaluation": "time_to_target_with_evaluation_s",
    "J": "energy_to_target_j",
    "images": "images_to_target",
    "price to\ntarget": prices.TO_TARGET,
    "price with\nevaluation": prices.WITH_EVALUATION,
}
COUNTED = ("ok", to_target.DIVERGED)
NEVER = math.inf  # a launch that did not reach the target took longer than any that did


@dataclass(frozen=True)
class TargetTable:
    """What one target took: `heads` has the headings, `lines` the cells of each trial's line, cheapest first in each
    effective batch."""

    title: str
    heads: list[str]
    lines: list[list[str]]
    notes: list[str]


def with_target(trials: pd.DataFrame, epochs: pd.DataFrame, target: float | None) -> pd.DataFrame:
    """The rows of trials.csv as if they had been run with this target; None: as they are.

    What it took is computed from epochs.csv, as a trial itself does while it trains.
    """
    if target is None or trials.empty:
        return trials
    if UNREADABLE in epochs:  # of a launch with an epoch that is not known, nothing is
        bad = epochs.loc[epochs[UNREADABLE].notna(), "launch_id"]
        epochs = epochs[~epochs["launch_id"].isin(bad)]
    needed = epochs[["launch_id", *to_target.EPOCH]].astype(object)
    needed = needed.where(needed.notna(), None)
    rows = {launch: own.to_dict("records") for launch, own in needed.groupby("launch_id", sort=False)}
    trained = (None if pd.isna(count) else int(count) for count in trials["epochs_trained"])
    launches = zip(trials["launch_id"], trained, strict=True)
    cells = [to_target.cells(rows.get(launch, []), target, count) for launch, count in launches]
    found = pd.DataFrame(cells, index=trials.index, dtype=object)
    typed = {name: found[name].where(found[name].notna(), pd.NA).astype(trials[name].dtype) for name in found}
    return trials.assign(target_accuracy=pd.array([target] * len(trials), dtype="Float64"), **typed)


def by_trial(rows: Sequence[Row]) -> list[list[Row]]:
    """The launches of these summarised rows that count: those of one trial together, whatever their seeds.

    They ended well or diverged. Without the latter, an arm would look the better the more of its seeds diverge.
    """
    alike = [name for name in summary.ALIKE if name not in ("seed", "status")]
    found: dict[Hashable, list[Row]] = {}
    for launch in launches_of(rows):
        if launch["status"] in COUNTED:
            found.setdefault(tuple(launch[name] for name in alike), []).append(launch)
    return list(found.values())


def launches_of(rows: Sequence[Row]) -> list[Row]:
    """All launches of these summarised rows."""
    return [launch for row in rows for launch in row["each"]]


def failures(rows: Sequence[Row], target: float) -> list[str]:
    """How many launches of each arm ended so that they do not count, and with which status."""
    failed = (each for each in launches_of(rows) if each["status"] not in COUNTED)
    found = Counter((each["arm"], each["status"]) for each in failed if each["target_accuracy"] == target)
    return [f"{arm}: left out, {count} with status {status or 'unknown'}" for (arm, status), count in found.items()]


def names(groups: Sequence[Sequence[Row]]) -> list[str]:
    """The short name of each of `by_trial`'s trials."""
    firsts = [{**each[0], "seed": None} for each in groups]
    return list(map(summary.titles(firsts), firsts))


def values(launches: Sequence[Row], name: str) -> list[float] | None:
    """A figure of each launch, NEVER where the target was not reached; None: there are none, or one is not known."""
    known = [launch for launch in launches if to_target.is_known(launch)]
    found: list[Any] = [launch.get(name) if to_target.reached(launch) else NEVER for launch in known]
    return None if None in found or not found else found


def tables(rows: Sequence[Row]) -> list[TargetTable]:
    """A table for each target that these summarised rows have; none if they have none."""
    targeted = (each for each in by_trial(rows) if each[0]["target_accuracy"] is not None)
    groups = [each for each in targeted if 0 <= each[0]["target_accuracy"] <= 1]  # any other cell is damaged
    targets = sorted({each[0]["target_accuracy"] for each in groups})
    return [
        table([each for each in groups if each[0]["target_accuracy"] == target], target, failures(rows, target))
        for target in targets
    ]


def table(groups: Sequence[list[Row]], target: float, failed: Sequence[str]) -> TargetTable:
    """The table of these trials; `failed`: what to say of the launches that do not count."""
    named = [(name, launches) for name, launches in zip(names(groups), groups, strict=True)]
    named.sort(key=lambda each: (each[1][0]["effective_batch"] or 0, median(values(each[1], TIME) or [NEVER])))
    shown = {head: name for head, name in FIGURES.items() if any(cell(launches, name) for _, launches in named)}
    farthest = any(how_far(launches) for _, launches in named)
    lines = [
        [
            name,
            str(launches[0]["effective_batch"] or ""),
            how_many(launches),
            *(cell(launches, column) for column in shown.values()),
            *([how_far(launches)] if farthest else []),
        ]
        for name, launches in named
    ]
    heads = ["trial", "effective\nbatch", "launches that\nreached it", *shown]
    return TargetTable(
        f"to {to_target.share(target)} on the evaluation set",
        heads + (["the others' best"] if farthest else []),
        lines,
        [*notes(named), *failed],
    )


def how_many(launches: Sequence[Row]) -> str:
    """How many of how many launches reached the target."""
    known = [launch for launch in launches if to_target.is_known(launch)]
    return f"{sum(map(to_target.reached, known))} of {len(known)}"


def cell(launches: Sequence[Row], name: str) -> str:
    """The median of a figure with its range; empty: it is not known, or less than half of the launches have one."""
    found = values(launches, name)
    if found is None or min(found) == NEVER:
        return ""
    middle = median(found)
    low, high = min(found), max(found)
    written = "-" if middle == NEVER else digits(middle)
    return written if low == high else f"{written} ({digits(low)} .. {'never' if high == NEVER else digits(high)})"


def how_far(launches: Sequence[Row]) -> str:
    """The best accuracy of the launches that did not reach the target, and after which epoch; empty: all did."""
    missed = (each for each in launches if to_target.is_known(each) and not to_target.reached(each))
    others = [each for each in missed if each["best_eval_accuracy"] is not None]
    if not others:
        return ""
    best = max(others, key=lambda launch: launch["best_eval_accuracy"])
    return f"{to_target.share(best['best_eval_accuracy'])} after epoch {best['epochs_to_best']}"


def notes(named: Sequence[tuple[str, list[Row]]]) -> list[str]:
    """What a reader of the table has to know."""
    found = []
    if any(len(launches) > 1 for _, launches in named):
        found.append(
            "Of several launches, whatever their seeds, the median and the range; one that did not reach it, or that "
            "diverged, counts as longer than any that did."
        )
    if money := prices.said([launch for _, launches in named for launch in launches]):
        found.append(f"{money}, idle or not; training time, and with evaluation each evaluation until then too.")
    for name, launches in named:
        found += [f"{name}: left out, {each}" for each in left_out(launches)]
    return found


def left_out(launches: Sequence[Row]) -> list[str]:
    """How many launches do not say whether they reached their target, and why."""
    unknown = Counter(filter(None, map(to_target.why_unknown, launches)))
    return [f"{count} of {len(launches)} launches {why}" for why, count in unknown.items()]


def show(console: Console, rows: Sequence[Row], wide: bool = False) -> None:
    """Print the tables."""
    for each in tables(rows):
        print_grid(console, Grid(each.heads, each.lines, title=each.title), wide)
        for note in each.notes:
            paragraph(console, note, "  ")
        console.print()


def remarks(row: Row) -> list[str]:
    """The note of a launch that did not reach its target."""
    towards: Any = to_target.in_words(row)
    return [towards] if towards and not to_target.reached(row) and row["status"] == "ok" else []
