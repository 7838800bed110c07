"""Change points over many runs: since which run a metric is higher or lower. They alert, and block nothing.

One run is one point: the median of a trial's launches in one run folder. The series is taken in logarithms. A single
outlier is cut to the level of its neighbours. Change points are where PELT (Killick et al. 2012, Journal of the
American Statistical Association 107) splits the series into parts of different means. Its penalty lets at most one
series in twenty alert where nothing changed (tests/reports/verdicts/test_history.py draws such series).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.errors import UsageError
from reports.read import trials
from reports.tables.summary import Row
from reports.verdicts import compare, likeness
from reports.verdicts.compare import METRICS, Side

FEWEST_RUNS = 10
SHORTEST = 3  # runs that a change has to last
PENALTY = 6.0  # per change point, times the logarithm of the length
NEIGHBOURS = 2  # on each side, that an outlier is compared with
NOISE = 1.4826  # standard deviation / median absolute deviation, of a normal distribution


@dataclass(frozen=True)
class Point:
    """One run's value of a series, when it began and of which commit."""

    value: float
    began: str
    commit: str


@dataclass(frozen=True)
class Alert:
    """A change point: the runs before and after it, up to the next change point."""

    before: Sequence[Point]
    after: Sequence[Point]

    def change(self) -> float:
        """The relative change of the medians: 0.1 is 10% more."""
        return median(self.after) / median(self.before) - 1


def median(points: Sequence[Point]) -> float:
    return statistics.median(point.value for point in points)


def run(folders: Sequence[Path], margin: float) -> None:
    """Print the change points of all series of these run folders, or folders of run folders.

    Raises UsageError if there is no run folder or if ruptures is not installed.
    """
    found = series([folder for each in folders for folder in run_folders(each)])
    console = Console(highlight=False, markup=False, soft_wrap=True)
    short = [len(points) for points in found.values() if len(points) < FEWEST_RUNS]
    enough = {key: points for key, points in found.items() if len(points) >= FEWEST_RUNS}
    alerts = [(key, each) for key, points in enough.items() for each in changes(points, margin)]
    for (trial, metric), each in sorted(alerts, key=lambda alert: (alert[1].after[0].began, alert[0])):
        worse = (each.change() > 0) == METRICS[metric]
        console.print(
            f"{'worse' if worse else 'better'} since {each.after[0].began[:19]} (commit {each.after[0].commit}): "
            f"{trial}: {metric} {spread(each.before)} -> {spread(each.after)}, {each.change():+.1%}"
        )
    console.print(f"{len(alerts)} change points in {len(enough)} series")
    if short:
        most = max(short)
        console.print(f"{len(short)} series have {most} runs or fewer, which is too few: {FEWEST_RUNS} are needed")


def spread(points: Sequence[Point]) -> str:
    """Median, lowest, highest and number of the runs: 0.01 (0.009 .. 0.011, 12 runs)."""
    values = [point.value for point in points]
    return f"{statistics.median(values):.5g} ({min(values):.5g} .. {max(values):.5g}, {len(values)} runs)"


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


@dataclass
class Series:
    """The runs of one trial on one machine. `machine` has what any of the runs knows of it."""

    settings: Hashable
    machine: Row
    sides: list[Side]

    def takes(self, settings: Hashable, row: Row) -> bool:
        """Whether a run is of this trial and may be of this machine. A machine without a name is another one."""
        if settings != self.settings or any(row[name] != self.machine[name] for name in likeness.IDENTITY):
            return False
        return not likeness.unlike([self.machine, row], compare.MACHINE)

    def add(self, side: Side) -> None:
        """Add a run, and what it knows of the machine."""
        self.sides.append(side)
        row = side.good()[0]
        self.machine |= {name: row[name] for name in compare.MACHINE if row[name] is not None}


def series(folders: Sequence[Path]) -> dict[tuple[str, str], list[Point]]:
    """(trial, metric) -> its runs in the order in which they began; each machine and version has its own series."""
    runs = [run for folder in folders for run in compare.by_settings(trials(folder)).items() if run[1].good()]
    found: list[Series] = []
    for settings, side in sorted(runs, key=lambda run: run[1].began()):
        row = side.good()[0]
        one = next((each for each in found if each.takes(settings, row)), None)
        if one is None:
            one = Series(settings, dict(row), [])
            found.append(one)
        one.add(side)
    machines = [each.machine for each in found]
    named = compare.titles(machines)
    # The host first; all that tells the series apart is named, so that no two have one title.
    names = [
        name
        for name in dict.fromkeys((*likeness.IDENTITY, *compare.MACHINE))
        if len({machine[name] for machine in machines}) > 1
    ]
    points = {}
    for each in found:
        where = ", ".join(f"{name} {likeness.listed({each.machine[name]})}" for name in names)
        title = f"{named(each.machine)} on {where}" if where else named(each.machine)
        for metric in METRICS:
            values = [(side, [value for value in side.values(metric) if value > 0]) for side in each.sides]
            points[title, metric] = [point(side, numbers) for side, numbers in values if numbers]
    return {key: known for key, known in points.items() if known}


def point(side: Side, values: Sequence[float]) -> Point:
    """A run's value of a metric."""
    return Point(statistics.median(values), side.began(), side.good()[0]["commit"] or "unknown")


def changes(points: Sequence[Point], margin: float) -> list[Alert]:
    """The changes by more than the margin. Raises UsageError if ruptures is not installed."""
    ends = [0, *parts([math.log(point.value) for point in points])]
    runs = [points[start:stop] for start, stop in itertools.pairwise(ends)]
    found = [Alert(before, after) for before, after in itertools.pairwise(runs)]
    return [alert for alert in found if abs(math.log1p(alert.change())) > math.log1p(margin)]


def parts(values: Sequence[float]) -> list[int]:
    """The index behind the last value of each part; the last one is the length of the series."""
    try:
        import numpy
        import ruptures
    except ImportError as error:
        raise UsageError("history needs ruptures; pip install -e '.[history]'") from error
    # From differences of neighbours, since a step moves only one of them; their noise is sqrt(2) times a value's.
    steps = [abs(b - a) for a, b in itertools.pairwise(values)]
    noise = NOISE * statistics.median(steps) / math.sqrt(2) or 1e-9
    scaled = [without_outlier(values, index, noise) / noise for index in range(len(values))]
    pelt = ruptures.Pelt(model="l2", min_size=SHORTEST, jump=1).fit(numpy.array(scaled).reshape(-1, 1))
    return pelt.predict(pen=PENALTY * math.log(len(values)))


def without_outlier(values: Sequence[float], index: int, noise: float) -> float:
    """A value, cut to within three times the noise of its neighbours' median."""
    middle = statistics.median(values[max(0, index - NEIGHBOURS) : index + NEIGHBOURS + 1])
    return min(max(values[index], middle - 3 * noise), middle + 3 * noise)
