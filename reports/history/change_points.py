"""Change points over many runs: since which run a metric is higher or lower. They alert, and block nothing.

A series is the points of run_points.py, taken in logarithms. A single outlier is cut to the level of its neighbours.
Change points are where PELT (Killick et al. 2012, Journal of the American Statistical Association 107) splits the
series into parts of different means. Its penalty lets at most one series in twenty alert where nothing changed
(tests/reports/history/test_history.py draws such series).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.errors import UsageError
from reports.history import run_points
from reports.history.run_points import Point
from reports.tables.table import machine_line
from reports.verdicts.compare import METRICS

FEWEST_RUNS = 10
SHORTEST = 3  # runs that a change has to last
LEAST_NOISE = 1e-5  # of equal values; squares of larger quotients would lose digits
PENALTY = 6.0  # per change point, times the logarithm of the length
NEIGHBOURS = 2  # on each side, that an outlier is compared with
NOISE = 1.4826  # standard deviation / median absolute deviation, of a normal distribution

Part = Sequence[Point]  # the runs from one change point to the next


@dataclass(frozen=True)
class Alert:
    """A change point: the runs before and after it, up to the next change point, and whether it is for the worse.

    `start` is the place in the series of the first run after it.
    """

    before: Part
    after: Part
    worse: bool
    start: int

    def change(self) -> float:
        """The relative change of the medians: 0.1 is 10% more."""
        return median(self.after) / median(self.before) - 1

    def since(self) -> Point:
        """The first run after the change."""
        return self.after[0]


@dataclass(frozen=True)
class Series:
    """A metric of a trial on one machine: its runs in the order in which they began, in parts at its change points.

    `alerts` are the changes by more than the margin. `short`: the runs are too few to look for change points.
    """

    trial: str
    machine: str
    metric: str
    parts: Sequence[Part]
    alerts: Sequence[Alert]
    short: bool

    def points(self) -> list[Point]:
        return [point for part in self.parts for point in part]

    def placed(self) -> list[tuple[int, Part]]:
        """The place of its first run in the series, and the part, for each part."""
        starts = itertools.accumulate((len(part) for part in self.parts[:-1]), initial=0)
        return list(zip(starts, self.parts, strict=True))


def median(points: Part) -> float:
    return statistics.median(point.value for point in points)


def find(folders: Sequence[Path], margin: float) -> list[Series]:
    """All series of these run folders, or folders of run folders, trial after trial.

    Raises UsageError if there is no run folder, if one of their rows cannot be read or if ruptures is not installed.
    """
    trials = run_points.trials([each for folder in folders for each in run_points.run_folders(folder)])
    return [
        series(title, machine_line(runs.machine), metric, points, margin)
        for title, runs in trials.items()
        for metric in METRICS
        if (points := runs.points(metric))
    ]


def series(trial: str, machine: str, metric: str, points: Sequence[Point], margin: float) -> Series:
    """These points in parts, and the changes between the parts by more than the margin."""
    short = len(points) < FEWEST_RUNS
    ends = [len(points)] if short else parts([math.log(point.value) for point in points])
    split = [points[start:stop] for start, stop in itertools.pairwise([0, *ends])]
    worse = [(median(after) > median(before)) == METRICS[metric] for before, after in itertools.pairwise(split)]
    changes = map(Alert, split, split[1:], worse, ends)
    alerts = [each for each in changes if abs(math.log1p(each.change())) > math.log1p(margin)]
    return Series(trial, machine, metric, split, alerts, short)


def show(found: Sequence[Series]) -> None:
    """Print the change points of all series, the earliest first."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    alerts = [(alert, each) for each in found for alert in each.alerts]
    for alert, each in sorted(alerts, key=lambda pair: (pair[0].since().began, pair[1].trial, pair[1].metric)):
        console.print(
            f"{'worse' if alert.worse else 'better'} since {alert.since().began[:19]} (commit {alert.since().commit}): "
            f"{each.trial}: {each.metric} {spread(alert.before)} -> {spread(alert.after)}, {alert.change():+.1%}"
        )
    short = [len(each.points()) for each in found if each.short]
    console.print(f"{len(alerts)} change points in {len(found) - len(short)} series")
    if short:
        most = max(short)
        console.print(f"{len(short)} series have {most} runs or fewer, which is too few: {FEWEST_RUNS} are needed")


def spread(points: Part) -> str:
    """Median, lowest, highest and number of the runs: 0.01 (0.009 .. 0.011, 12 runs)."""
    values = [point.value for point in points]
    return f"{statistics.median(values):.5g} ({min(values):.5g} .. {max(values):.5g}, {len(values)} runs)"


def parts(values: Sequence[float]) -> list[int]:
    """The index behind the last value of each part; the last one is the length of the series."""
    try:
        import numpy
        import ruptures
    except ImportError as error:
        raise UsageError("history needs ruptures; pip install -e '.[history]'") from error
    scale = max(noise(values), LEAST_NOISE)
    middle = statistics.median(values)
    scaled = [(without_outlier(values, index, scale) - middle) / scale for index in range(len(values))]
    # With a linear kernel the cost is the sum of squares around the mean, and PELT runs in C: a thousand times as fast
    # as ruptures.Pelt for 2,000 runs.
    pelt = ruptures.KernelCPD(kernel="linear", min_size=SHORTEST).fit(numpy.array(scaled).reshape(-1, 1))
    return [int(end) for end in pelt.predict(pen=PENALTY * math.log(len(values)))]


def noise(values: Sequence[float]) -> float:
    """The standard deviation of a value, from differences of neighbours, since a step moves only one of them."""
    steps = [abs(b - a) for a, b in itertools.pairwise(values)]
    return NOISE * statistics.median(steps) / math.sqrt(2)  # a difference has sqrt(2) times the noise of a value


def without_outlier(values: Sequence[float], index: int, noise: float) -> float:
    """A value, cut to within three times the noise of its neighbours' median."""
    middle = statistics.median(values[max(0, index - NEIGHBOURS) : index + NEIGHBOURS + 1])
    return min(max(values[index], middle - 3 * noise), middle + 3 * noise)
