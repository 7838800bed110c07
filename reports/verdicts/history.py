"""Change points over many runs: at which of them a metric began to be another. An alert, which blocks nothing.

The unit is the run: the median of a trial's launches in one run folder. A series of logarithms, its single outliers cut
to what neighbours show, is parted where that explains enough of it: PELT (Killick et al. 2012, Journal of the American
Statistical Association 107) on its means, in units of its noise, with a penalty that lets one series in twenty alert
where nothing changed, or fewer (tests/reports/verdicts/test_history.py draws such series).
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
from reports.verdicts import compare
from reports.verdicts.compare import METRICS, Row

FEWEST_RUNS = 10
SHORTEST = 3  # runs that a change has to last
PENALTY = 6.0
REACH = 2  # neighbours on each side that an outlier is judged by
NOISE = 1.4826  # of a normal distribution's median absolute deviation, its standard deviation


@dataclass(frozen=True)
class Point:
    """One run's value of a series, when it began and of which commit."""

    value: float
    began: str
    commit: str


@dataclass(frozen=True)
class Alert:
    """Where a series began to be another: the runs before and after, up to the next such place."""

    before: Sequence[Point]
    after: Sequence[Point]

    def change(self) -> float:
        """Relative, of the medians."""
        return median(self.after) / median(self.before) - 1


def median(points: Sequence[Point]) -> float:
    return statistics.median(point.value for point in points)


def run(folders: Sequence[Path], margin: float) -> None:
    """Print the change points of all series of these run folders, or folders of run folders.

    UsageError: there is no run folder, or the library that finds change points is not installed.
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
    """Median, lowest and highest of so many runs."""
    values = [point.value for point in points]
    return f"{statistics.median(values):.5g} ({min(values):.5g} .. {max(values):.5g}, {len(values)} runs)"


def run_folders(folder: Path) -> list[Path]:
    """The folder itself, or those in it. UsageError: none is a run's."""
    if (folder / "trials.csv").is_file():
        return [folder]
    try:
        found = sorted(each for each in folder.iterdir() if (each / "trials.csv").is_file())
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror}; give run folders, or a folder of them") from error
    if not found:
        raise UsageError(f"{folder} has no run folder in it; give run folders, or a folder of them")
    return found


def series(folders: Sequence[Path]) -> dict[tuple[str, str], list[Point]]:
    """(trial, metric) -> a point for each run, as they began; each machine and version has series of its own."""
    points: dict[tuple[Hashable, Hashable, str], list[Point]] = {}
    firsts: dict[tuple[Hashable, Hashable], Row] = {}
    for folder in folders:
        for settings, side in compare.by_settings(trials(folder)).items():
            good = side.good()
            if not good:
                continue
            key = (settings, tuple(good[0][name] for name in compare.MACHINE))
            firsts.setdefault(key, good[0])
            for metric in METRICS:
                if values := [value for value in side.values(metric) if value > 0]:
                    point = Point(
                        statistics.median(values), good[0]["started_at"] or "", good[0]["commit"] or "unknown"
                    )
                    points.setdefault((*key, metric), []).append(point)
    named = compare.titles(list(firsts.values()))
    several = len({machine for _, machine in firsts}) > 1

    def title(row: Row) -> str:
        return named(row) + (f" on {row['host']}, torch {row['torch']}" if several else "")

    return {
        (title(firsts[settings, machine]), metric): sorted(found, key=lambda point: point.began)
        for (settings, machine, metric), found in points.items()
    }


def changes(points: Sequence[Point], margin: float) -> list[Alert]:
    """Where the series changes by more than the margin. UsageError: the library is not installed."""
    ends = [0, *parts([math.log(point.value) for point in points])]
    runs = [points[start:stop] for start, stop in itertools.pairwise(ends)]
    found = [Alert(before, after) for before, after in itertools.pairwise(runs)]
    return [alert for alert in found if abs(math.log1p(alert.change())) > math.log1p(margin)]


def parts(values: Sequence[float]) -> list[int]:
    """Where each part of a series ends, the last at its end."""
    try:
        import numpy
        import ruptures
    except ImportError as error:
        raise UsageError("history needs ruptures; pip install -e '.[history]'") from error
    steps = [abs(b - a) for a, b in itertools.pairwise(values)]
    noise = NOISE * statistics.median(steps) / math.sqrt(2) or 1e-9
    calm = [calmed(values, place, noise) / noise for place in range(len(values))]
    found = ruptures.Pelt(model="l2", min_size=SHORTEST, jump=1).fit(numpy.array(calm).reshape(-1, 1))
    return found.predict(pen=PENALTY * math.log(len(values)))


def calmed(values: Sequence[float], place: int, noise: float) -> float:
    """A value, brought to within three times the noise of its neighbours' median."""
    middle = statistics.median(values[max(0, place - REACH) : place + REACH + 1])
    return min(max(values[place], middle - 3 * noise), middle + 3 * noise)
