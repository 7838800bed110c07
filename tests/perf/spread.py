"""What the spread between pairs of a gate's launches is made of: their turns, or the launches themselves."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

from reports.verdicts import turns
from reports.verdicts.selftest import Pair

RESAMPLES = 200
NAMES = {"step_time_p50_s": "step time", "step_cpu_time_p50_s": "CPU time"}
NORMAL = 1.349  # the interquartile range of a normal distribution, in standard deviations
TEXT = """Of the equal pairs above, step time and CPU time. Between turns: the interquartile range of a pair's log
ratios / 1.349, the median over pairs. Within pairs: what that leaves in the middle of a pair's turns (bootstrap over
turns, root mean square over pairs). Between launches: what is left of the variance between pairs."""
HEAD = "| run | metric | turns | between turns | between pairs | of it within pairs | between launches |"
RULE = "| --- | --- | ---: | ---: | ---: | ---: | ---: |"


def lines(run: str, pairs: Sequence[Pair], draw: random.Random) -> list[str]:
    """The rows of one run, for each time that its turns have."""
    return [
        line(f"{run} | {name}", found, draw)
        for metric, name in NAMES.items()
        if min(map(len, found := [ratios(metric, pair) for pair in pairs])) >= turns.FEWEST
    ]


def ratios(metric: str, pair: Pair) -> list[float]:
    """The log ratios of a pair's turns."""
    base, head = (row[turns.TURNS][turns.TIMES[metric]] for row in pair)
    return turns.log_ratios(base, head)


def line(name: str, found: Sequence[Sequence[float]], draw: random.Random) -> str:
    """A row of the table, from the log ratios of each pair's turns."""
    between = statistics.stdev(map(turns.middle, found))
    turn = statistics.median(spread(each) for each in found)
    within = statistics.fmean(error_of_middle(each, draw) ** 2 for each in found) ** 0.5
    rest = between**2 - within**2
    launches = f"{rest**0.5:.2%}" if rest > 0 else "none seen"
    count = round(statistics.median(map(len, found)))
    return f"| {name} | {count} | {turn:.1%} | {between:.2%} | {within:.2%} | {launches} |"


def spread(values: Sequence[float]) -> float:
    """The standard deviation that the middle half of these values would have in a normal distribution."""
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / NORMAL


def error_of_middle(values: Sequence[float], draw: random.Random) -> float:
    """The standard error of the middle of these values, by drawing from them again."""
    return statistics.stdev(turns.middle(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
