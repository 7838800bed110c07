"""Many run folders as points: each run's value of each trial's metrics, in the order in which the runs began.

One run is one point: the median of a trial's launches in one run folder. Each machine and version has its own points.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from bench.errors import UsageError
from reports.read import trials_of_many
from reports.tables.summary import Row, row_of
from reports.verdicts import compare, likeness, matching
from reports.verdicts.compare import METRICS
from reports.verdicts.matching import Side


@dataclass(frozen=True)
class Point:
    """One run's value of a metric, when it began ("": unknown) and of which commit."""

    value: float
    began: str
    commit: str


@dataclass(frozen=True)
class Run:
    """One trial's launches in one run folder: its settings, a row of them, and a point for each metric that it has."""

    settings: Hashable
    row: Row
    points: dict[str, Point]
    began: str


@dataclass
class TrialRuns:
    """One trial's runs on one machine, as they began. `machine` has what any of them knows of it."""

    machine: Row
    runs: list[Run] = field(default_factory=list)

    def takes(self, row: Row) -> bool:
        """Whether a run may be of this machine. A machine without a name is another one."""
        if any(row[name] != self.machine[name] for name in likeness.IDENTITY):
            return False
        return not likeness.unlike([self.machine, row], compare.MACHINE)

    def add(self, run: Run) -> None:
        """Add a run, and what it knows of the machine."""
        self.runs.append(run)
        self.machine |= {name: run.row[name] for name in compare.MACHINE if run.row[name] is not None}

    def points(self, metric: str) -> list[Point]:
        """The points of a metric; none if no run has it."""
        return [run.points[metric] for run in self.runs if metric in run.points]


def trials(folders: Sequence[Path]) -> dict[str, TrialRuns]:
    """Title -> the runs of a trial on one machine.

    Raises UsageError if a folder is no run folder or if one of its rows cannot be read.
    """
    by_settings: dict[Hashable, list[TrialRuns]] = {}
    for run in sorted(runs(folders), key=lambda run: run.began):
        alike = by_settings.setdefault(run.settings, [])
        one = next((each for each in alike if each.takes(run.row)), None)
        if one is None:
            alike.append(one := TrialRuns(dict(run.row)))
        one.add(run)
    found = [each for alike in by_settings.values() for each in alike]
    return dict(zip(titles([each.machine for each in found]), found, strict=True))


def titles(machines: Sequence[Row]) -> list[str]:
    """A title for each, so that no two have the same: the trial, and the host first of all that tells them apart."""
    trial = matching.titles(machines)
    names = [
        name
        for name in dict.fromkeys((*likeness.IDENTITY, *compare.MACHINE))
        if len({machine[name] for machine in machines}) > 1
    ]
    where = [", ".join(f"{name} {likeness.listed({machine[name]})}" for name in names) for machine in machines]
    named = zip(map(trial, machines), where, strict=True)
    return [f"{name} on {place}" if place else name for name, place in named]


def runs(folders: Sequence[Path]) -> Iterator[Run]:
    """The runs that have a launch that ended well."""
    names = {*matching.SETTINGS, *compare.MACHINE, *likeness.IDENTITY, *METRICS}
    names |= {"launch_id", "trial_key", "status", "started_at", "commit"}
    for _, found in itertools.groupby(trials_of_many(folders, names), key=itemgetter(0)):
        for settings, side in matching.sides(row_of(record) for _, record in found).items():
            if side.good():
                yield Run(settings, side.good()[0], run_points(side), side.began())


def run_points(side: Side) -> dict[str, Point]:
    """Metric -> the run's point, the median of its launches; 0 and less have no logarithm and are left out."""
    commit = side.good()[0]["commit"] or "unknown"
    values = {metric: [value for value in side.values(metric) if value > 0] for metric in METRICS}
    return {metric: Point(statistics.median(known), side.began(), commit) for metric, known in values.items() if known}


def run_folders(folder: Path) -> list[Path]:
    """The folder itself, or the run folders in it. Raises UsageError if there is none."""
    if (folder / "trials.csv").is_file():
        return [folder]
    try:
        found = sorted(each for each in folder.iterdir() if (each / "trials.csv").is_file())
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror}; give run folders, or a folder of them") from error
    if not found:
        raise UsageError(f"{folder} has no run folder in it; give run folders, or a folder of them")
    return found
