"""Which launches are one machine's, which machines ran the same trial, and what else is unlike between them?

A machine is a value of the column that was asked for. Launches of one machine that `bench.column` keeps out of one
median, such as those of two versions of torch, are lines of their own, each with what tells it from the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import groupby

from bench.record.columns import kept_apart
from reports.across.reference import Published
from reports.tables import summary
from reports.tables.figures import text
from reports.tables.prices import device
from reports.tables.summary import Row
from reports.typed import UNREADABLE
from reports.verdicts import matching
from reports.verdicts.likeness import VARIABLES, listed, variables

DEVICE = "device_name"
NAMES = (DEVICE, "host", "cpu_model")  # columns whose values say by themselves what they are of
SETTINGS = kept_apart("trial")
ENVIRONMENT = "environment.json"  # of a row that was read with it: its launch's entry there
ONE_MEDIAN = [UNREADABLE, *kept_apart("median")]
# Beside its settings, what launches of one median agree in; and what their energies are of.
ABOUT = [name for name in (*ONE_MEDIAN, "energy_source") if name not in SETTINGS]


@dataclass(frozen=True)
class Line:
    """One machine's launches of a trial: `row` has the medians of those that ended well and, in `each`, those launches.

    If none did, `row` is one of `failed` without its numbers. `machine` is a name that no other line of the trial has.
    A line with `published` is a source's: its row has nothing but the throughput.
    """

    machine: str
    row: Row
    failed: Sequence[Row] = ()
    published: Published | None = None


@dataclass(frozen=True)
class Trial:
    """One trial on several machines. The first line is what the others are held against; `unlike` says what else
    differs."""

    title: str
    lines: Sequence[Line]
    unlike: Sequence[str]

    def row(self) -> Row:
        """A row with the settings, which are those of every line."""
        return self.lines[0].row


@dataclass(frozen=True)
class Apart:
    """Launches that stand beside no others: of which trial, on which machine, and why."""

    trial: str
    machine: str
    why: str


def machine(row: Row, by: str) -> str:
    """The machine of a row. With the device asked for, a CPU is the machine that its model says."""
    value = device(row) if by == DEVICE else row[by]
    if value is None:
        return f"no {by}"
    return text(value) if by in NAMES else f"{by} {text(value)}"


def settings(by: str) -> list[str]:
    """The settings that are equal on all lines of a trial."""
    return [name for name in SETTINGS if name != by]


def trials(rows: Sequence[Row], by: str) -> dict[Hashable, list[Line]]:
    """Settings -> the lines of the machines that ran them, in the order in which the rows have the machines."""
    order = list(dict.fromkeys(machine(row, by) for row in rows))
    groups: dict[Hashable, dict[Hashable, list[Row]]] = {}
    for row in rows:
        key: Hashable = tuple(row[name] for name in settings(by))
        alike = (machine(row, by), *(row[name] for name in ONE_MEDIAN))
        groups.setdefault(key, {}).setdefault(alike, []).append(row)
    found: dict[Hashable, list[Line]] = {}
    for key, each in groups.items():
        lines = sorted((line(group, by) for group in each.values()), key=lambda one: order.index(one.machine))
        found[key] = named(lines, by)
    return found


def line(rows: Sequence[Row], by: str) -> Line:
    """These launches as one line; of one that failed, no number counts."""
    good, failed = ([row for row in rows if (row["status"] == "ok") == well] for well in (True, False))
    nothing = {**rows[0], **dict.fromkeys(summary.MEASURED), "spread": {}, "each": []}
    row = summary.one(good) if good else nothing
    return Line(machine(rows[0], by), row, failed)


def named(lines: Sequence[Line], by: str) -> list[Line]:
    """The lines, those of one machine with names that tell them apart: by the first columns in which they differ."""
    found: list[Line] = []
    for name, same in groupby(lines, key=lambda one: one.machine):
        alike = list(same)
        chosen: list[str] = []
        for column in summary.telling([one.row for one in alike], [by, *chosen]):
            before, after = (len({words(one, names) for one in alike}) for names in (chosen, [*chosen, column]))
            chosen += [column] if after > before else []
        found += [Line(", ".join([name, *words(one, chosen)]), one.row, one.failed) for one in alike]
    return found


def words(of: Line, names: Sequence[str]) -> tuple[str, ...]:
    """What a line has in these columns: torch 2.9.0."""
    return tuple(f"{name} {listed({of.row[name]})}" for name in names)


def unlike(lines: Sequence[Line], by: str) -> list[str]:
    """What the lines differ in beside the machine: "torch 2.9.0 against 2.14.1". Of three lines or more, with whose."""
    rows = [one.row for one in lines]
    asked = {by, "cpu_model"} if by == DEVICE and all(row[DEVICE] == "cpu" for row in rows) else {by}
    if all(row["machines"] == 1 for row in rows):
        asked.add("devices")  # the host, the number of devices and their name once more
    known = [facts(one) for one in lines]
    found = []
    for name in (name for name in dict.fromkeys(name for each in known for name in each) if name not in asked):
        whose: dict[str, list[str]] = {}
        for one, each in zip(lines, known, strict=True):
            whose.setdefault(each.get(name, "nothing"), []).append(one.machine)
        if len(whose) > 1:
            parts = [f"{each} ({', '.join(of)})" if len(lines) > 2 else each for each, of in whose.items()]
            found.append(f"{name} {' against '.join(parts)}")
    return found


def facts(of: Line) -> dict[str, str]:
    """What is known of a line's machine: the columns about it, and what environment.json has besides."""
    launches = [*of.row["each"], *of.failed]
    found = {name: listed({row[name] for row in launches}) for name in ABOUT if name not in VARIABLES}
    cells = [[variables(row[name]) for row in launches if row[name] is not None] for name in VARIABLES]
    for each in cells:
        for name in sorted({name for cell in each for name in cell}):
            found[name] = listed({cell.get(name) for cell in each})
    besides = dict.fromkeys(name for row in launches for name in row.get(ENVIRONMENT, ()))
    return found | {name: listed({row.get(ENVIRONMENT, {}).get(name) for row in launches}) for name in besides}


def apart(found: dict[Hashable, list[Line]], by: str) -> list[Apart]:
    """The trials that one machine alone ran, each with what differs from the nearest one of another machine.

    Two that are each other's nearest are said once.
    """
    named = matching.titles([without(lines[0].row, by) for lines in found.values()])
    alone = {key: lines for key, lines in found.items() if not several(lines, by)}
    said: set[Hashable] = set()
    result = []
    for key, lines in alone.items():
        row = lines[0].row
        here = machine(row, by)
        others = [
            (other, one.row)
            for other, each in found.items()
            for one in each
            if machine(one.row, by) != here
            and (one.row["experiment"], one.row["arm"]) == (row["experiment"], row["arm"])
        ]
        title, names = named(without(row, by)), settings(by)
        if not others:
            result.append(Apart(title, here, "no other machine ran this arm"))
            continue
        nearest, other = min(others, key=lambda pair: len(matching.differences(row, pair[1], names)))
        if nearest not in said:
            said.add(key)
            differing = "; ".join(matching.differences(row, other, names))
            result.append(Apart(title, here, f"{differing} on {machine(other, by)}"))
    return result


def several(lines: Sequence[Line], by: str) -> bool:
    """Whether the lines are of several machines. A launch that failed before it knew its machine is of none."""
    return len({machine(one.row, by) for one in lines if one.row["each"] or one.row[by] is not None}) > 1


def without(row: Row, by: str) -> Row:
    """The row for a title, which must not say what the machines differ in; an experiment's arm is in every title."""
    return row if by in ("experiment", "arm") else {**row, by: None}
