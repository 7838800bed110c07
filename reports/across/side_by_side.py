"""Reads runs and sets their machines, and what others published, side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UsageError
from bench.record.columns import columns
from reports import merge, read, typed
from reports.across import machines
from reports.across.machines import DEVICE, ENVIRONMENT, Apart, Line, Trial, machine
from reports.across.reference import Published, differences
from reports.tables import summary
from reports.tables.prices import Prices, cells, check
from reports.tables.summary import Row
from reports.typed import UNREADABLE
from reports.verdicts import matching
from reports.verdicts.likeness import IDENTITY

NAMES = {column.name for column in columns("trials")}
# What makes a machine another one, the clearest first.
MACHINES = list(dict.fromkeys([DEVICE, *IDENTITY, *(c.name for c in columns("trials") if "machine" in c.roles)]))
# Columns whose values may be the machines: those that `bench.column` gives a role, and none of what was measured.
TAKEN = [column.name for column in columns("trials") if column.roles]
OF_THE_LAUNCH = ("command", "commit_is_clean")  # in environment.json; the commit itself says it
CAPABILITY = "cpu_capability"  # of an older version, which had no such column, it is in environment.json
# Of what a source measured and does not say.
NOTHING: Row = {**dict.fromkeys(NAMES), UNREADABLE: None, "spread": {}, "each": []}


@dataclass(frozen=True)
class Across:
    """The trials that several machines ran, and the launches that stand beside no others. `by` is the column whose
    values are the machines."""

    by: str
    trials: Sequence[Trial]
    apart: Sequence[Apart]


def of_folders(folders: Sequence[Path], by: str, prices: Prices, figures: Sequence[Published]) -> Across:
    """The machines of these run folders side by side.

    Raises UsageError if no run wrote a folder, if `by` is none of TAKEN, if a price is of a device that no launch used,
    or if the machines have no trial in common.
    """
    if by not in TAKEN:
        raise UsageError(
            f"across: --by takes no {by!r}; give a column of trials.csv that says the machine "
            f"({', '.join(MACHINES[:4])}, ...), the commit, or a setting, such as precision"
        )
    rows: list[Row] = []
    for folder in folders:
        trials, skipped = read.readable_trials(folder)
        read.say_lost(skipped, "trials")
        rows += launches(trials, merge.read_environments(folder / ENVIRONMENT))
    rows = once(rows)
    if not rows:
        raise UsageError(f"across: no trial has ended in {folders[0]}; give run folders with trials")
    check(rows, prices)
    found = side_by_side([{**row, **cells(row, prices)} for row in rows], by, figures)
    if not found.trials:
        raise UsageError(nothing_in_common(rows, found, figures))
    return found


def of_run(trials: pd.DataFrame, folder: Path) -> Across | None:
    """The machines of one run, such as a merged one, by the first of MACHINES in which they differ; None: it has one
    machine, or no trial that two of its machines ran."""
    if all(trials[name].nunique() < 2 for name in MACHINES):  # as of most runs, which need not wait for more
        return None
    environments: dict[str, Any] = {}
    with contextlib.suppress(UsageError):  # what the rows say is shown without it, too
        environments = merge.read_environments(folder / ENVIRONMENT)
    rows = once(launches(trials, environments))
    by = next((name for name in MACHINES if len({machine(row, name) for row in rows if well(row)}) > 1), None)
    found = side_by_side(rows, by, ()) if by is not None else None
    return found if found is not None and found.trials else None


def launches(trials: pd.DataFrame, environments: Mapping[str, Any]) -> list[Row]:
    """The rows, each with what its entry in environment.json says besides."""
    flat = {key: besides(each) for key, each in environments.items() if isinstance(each, dict)}
    rows = [summary.row_of(row) for row in trials.to_dict("records")]
    older = {key: each.get(CAPABILITY) for key, each in environments.items() if isinstance(each, dict)}
    found = ({**row, CAPABILITY: row[CAPABILITY] or older.get(row["environment"])} for row in rows)
    return [{**row, ENVIRONMENT: flat.get(row["environment"], {})} for row in found]


def besides(environment: Mapping[str, Any]) -> dict[str, str]:
    """What no column says of the machine, such as the versions of packages and environment variables, as plain text."""
    parts = [each.items() for each in environment.values() if isinstance(each, dict)]
    whole = [*((name, value) for name, value in environment.items() if not isinstance(value, dict)), *chain(*parts)]
    known = {name: value for name, value in whole if name not in (*NAMES, *OF_THE_LAUNCH) and value is not None}
    return {clean(name): clean(value) for name, value in known.items()}


def clean(value: object) -> str:
    """As text that a terminal cannot obey."""
    return typed.CONTROL.sub("?", str(value))


def once(rows: Iterable[Row]) -> list[Row]:
    """Each launch once, also if it is in two folders; those that somebody interrupted say nothing."""
    found = (row for row in rows if row["status"] != "interrupted")
    # Ids that cannot be read may be those of different launches.
    return list({row["launch_id"] or f"{number} without id": row for number, row in enumerate(found)}.values())


def well(row: Row) -> bool:
    return bool(row["status"] == "ok")


def side_by_side(rows: Sequence[Row], by: str, figures: Sequence[Published]) -> Across:
    """The trials of these launches that several machines ran, or that a published figure stands beside."""
    found = machines.trials(rows, by)
    named = matching.titles([machines.without(lines[0].row, by) for lines in found.values()])
    trials, stood = [], set()
    for lines in found.values():
        row = lines[0].row
        theirs = [each for each in figures if differences(row, each) == []] if lines[0].row["each"] else []
        if theirs or machines.several(lines, by):
            stood.update(theirs)
            sources = [of_source(each, row) for each in in_order(theirs, lines)]
            unlike = machines.unlike(lines, by)
            trials.append(Trial(named(machines.without(row, by)), [*lines, *sources], unlike))
    alone = [each for each in machines.apart(found, by) if each.trial not in {trial.title for trial in trials}]
    return Across(by, trials, [*alone, *not_beside(figures, stood, found, by)])


def of_source(figure: Published, beside: Row) -> Line:
    """A published figure as a line."""
    row = {**NOTHING, "images_per_s": figure.images_per_s, "micro_batch": beside["micro_batch"]}
    return Line(f"{figure.name()} (published)", row, published=figure)


def in_order(figures: Iterable[Published], lines: Sequence[Line]) -> list[Published]:
    """Those of a device of ours first, then the fastest."""
    ours = [words(machine(line.row, DEVICE)) for line in lines]
    return sorted(figures, key=lambda each: (not any(words(each.device) <= own for own in ours), -each.images_per_s))


def words(device: str) -> set[str]:
    """The words of a device's name, such as those of "NVIDIA GeForce RTX 3090" and "RTX 3090"."""
    return set("".join(letter if letter.isalnum() else " " for letter in device.lower()).split())


def not_beside(
    figures: Sequence[Published], stood: set[Published], found: Mapping[Hashable, Sequence[Line]], by: str
) -> list[Apart]:
    """The published figures of a model of ours that stand beside no trial, with what differs from the nearest one."""
    result = []
    for figure in figures:
        unlike = [differences(lines[0].row, figure) for lines in found.values()]
        near = [each for each in unlike if each is not None]
        if near and figure not in stood:
            nearest = min(near, key=len)
            title = f"{figure.model}, {figure.images_per_s:g} images/s"
            result.append(Apart(title, f"{figure.name()} (published)", "; ".join(nearest)))
    return result


def nothing_in_common(rows: Sequence[Row], found: Across, figures: Sequence[Published]) -> str:
    """Why nothing stands side by side, and what to do about it."""
    published = none_published(rows, figures)
    here = list(dict.fromkeys(machine(row, found.by) for row in rows if well(row) or row[found.by] is not None))
    if len(here) > 1:
        first = f"{found.apart[0].trial} on {found.apart[0].machine}: {found.apart[0].why}" if found.apart else ""
        equal = f"launch it with equal settings on both{published}"
        return f"across: no trial ran on two of {', '.join(here)} ({first}); {equal}"
    others = [name for name in machines.ABOUT if name in TAKEN and len({row[name] for row in rows}) > 1]
    instead = f"; or --by {', '.join(others)}, in which launches differ" if others else ""
    one = f"all launches are of one machine, {here[0]}" if here else f"no launch knows its {found.by}"
    return f"across: {one}; give the runs of others too{instead}{published}"


def none_published(rows: Iterable[Row], figures: Sequence[Published]) -> str:
    """Why no published figure stands beside these rows: what keeps the nearest one apart; "": none was asked for."""
    good = [row for row in rows if well(row)]
    pairs = ((figure, differences(row, figure)) for figure in figures for row in good)
    apart = [(figure, unlike) for figure, unlike in pairs if unlike]
    if not figures or not good:
        return ""
    if not apart:
        models = " and ".join(dict.fromkeys(str(row["model"]) for row in good))
        return f"; no published figure is of {models}, only of {', '.join(sorted({each.model for each in figures}))}"
    figure, unlike = min(apart, key=lambda each: len(each[1]))
    what = f"{figure.images_per_s:g} images/s of {figure.model} on {figure.name()}"
    return f"; the nearest published figure, {what}, stands apart: {', '.join(unlike)}"
