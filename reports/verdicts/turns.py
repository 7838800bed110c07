"""Which launches were made in pairs, and of those that took turns, the change of a pair's neighbouring blocks of steps.

Who made them has recorded it: launches that took turns name each other (turns_with), and those that ran one after the
other to be compared are of one round (rounds.csv). Equal repeats, or times that alternate by chance, make no pairs.

A launch of BASE and one of HEAD alternated, block by block (bench.instruments.turns). Both blocks of a turn saw the
same state of the machine, so that their ratio has little of its noise. A pair's change is the middle of its blocks' log
ratios (`middle`); the pairs remain the unit of the test, since launches also differ in what stays the same while they
last, such as where memory lies.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from reports import read
from reports.tables.summary import Row

# Column of trials.csv -> the column of steps.csv that it is the median of.
STEP_TIME = "step_time_p50_s"
TIMES = {STEP_TIME: "step_time_s", "step_cpu_time_p50_s": "cpu_time_s"}
SPEED = "images_per_s"
METRICS = (*TIMES, SPEED)
TURNS = "turns"
"""Key of a row: column of steps.csv -> number of the turn -> mean over its measured steps."""
PAIRS = 2  # fewer have no spread: their launches are compared with all others, unpaired
FEWEST = 5  # turns that both launches measured
TRIMMED = 0.1
MOST = 1000  # turns whose middle is taken; they have 500,500 means of two


def attach(rows: Iterable[Row], folder: Path) -> None:
    """Give each row of a launch that took turns the times of its turns, from the folder's steps.csv.

    Rows of pytest-benchmark's files have them already.
    """
    of_launch = {row["launch_id"]: row for row in rows if row["turns_with"] and not row.get(TURNS)}
    if not of_launch:
        return
    steps, lost = read.steps(folder, [*TIMES.values(), "turn", "images"])
    read.say_lost(lost, "steps")
    for launch_id, own in steps[steps["launch_id"].isin(of_launch.keys())].groupby("launch_id"):
        full = own[own["images"] == own["images"].max()]  # an epoch's last, short step is less work
        of_launch[launch_id][TURNS] = {name: means(full, name) for name in TIMES.values()}


def means(steps: pd.DataFrame, name: str) -> dict[int, float]:
    """Turn -> mean of this column over its steps; turns without a value are left out."""
    found = steps.groupby("turn")[name].mean().dropna()
    return {int(turn): value for turn, value in zip(found.index, found.tolist(), strict=True) if value > 0}


def paired(base: Sequence[Row], head: Sequence[Row]) -> tuple[list[Row], list[Row]] | None:
    """The launches that were made in pairs, in pairs; None if they were not, or too few of them.

    In each pair either side may have begun. A launch whose partner failed, or that has none, is left out.
    """
    if found := partners(base, head):
        return found
    before, after = ({made_in(row): row for row in rows if made_in(row)} for rows in (base, head))
    if any(sum(made_in(row) is not None for row in rows) > len(own) for rows, own in ((base, before), (head, after))):
        return None  # a round has several launches of one side
    both = [key for key in before if key in after]
    return ([before[key] for key in both], [after[key] for key in both]) if len(both) >= PAIRS else None


def made_in(row: Row) -> Hashable | None:
    """The round in which a launch was made, and which of its launches it is; None: in none that is known."""
    found = row.get(read.ROUND)
    return None if found is None else (found, row["repeat"])


def partners(base: Sequence[Row], head: Sequence[Row]) -> tuple[list[Row], list[Row]] | None:
    """The launches that took turns with each other, in pairs; None: none did. One whose partner failed is left out."""
    by_id = {str(row["launch_id"]): row for row in head}
    pairs = [(row, by_id[name]) for row in base for name in with_whom(row) if name in by_id]
    pairs = [pair for pair in pairs if with_each_other(*pair)]
    return ([row for row, _ in pairs], [other for _, other in pairs]) if pairs else None


def with_each_other(one: Row, other: Row) -> bool:
    """Whether each of them took turns with the other."""
    return str(other["launch_id"]) in with_whom(one) and str(one["launch_id"]) in with_whom(other)


def with_whom(row: Row) -> list[str]:
    """The launch ids of those that it took turns with."""
    return str(row["turns_with"] or "").split()


def changes(metric: str, base: Sequence[Row], head: Sequence[Row]) -> list[float] | None:
    """log(head / base) of each pair.

    None if the metric is no time or speed of steps, a pair did not take turns with each other, or has too few turns.
    """
    column = TIMES[STEP_TIME] if metric == SPEED else TIMES.get(metric)
    found = []
    for one, other in zip(base, head, strict=True):
        if column is None or not with_each_other(one, other):
            return None
        times = [(row.get(TURNS) or {}).get(column, {}) for row in (one, other)]
        ratio = speed_change(*times) if metric == SPEED else change(*times)
        if ratio is None:
            return None
        found.append(ratio)
    return found


def change(base: Mapping[int, float], head: Mapping[int, float]) -> float | None:
    """The middle of log(head / base) over one pair's turns, from turn -> seconds of each side; None: too few turns."""
    ratios = log_ratios(base, head)
    return middle(ratios) if len(ratios) >= FEWEST else None


def middle(values: Sequence[float]) -> float:
    """The median of the means of any two of these values, or of MOST of them, each also with itself.

    Of turns it spreads less than their median, by 12% over 83 pairs of launches of two processes, and what slows a
    fifth of them does not move it either. Source: Hodges and Lehmann 1963, Annals of Mathematical Statistics 34.
    """
    few = np.asarray(values)[:: math.ceil(len(values) / MOST)]
    one, other = np.triu_indices(len(few))
    return float(np.median((few[one] + few[other]) / 2))


def speed_change(base: Mapping[int, float], head: Mapping[int, float]) -> float | None:
    """log(head / base) of one pair's images/s: of the mean over its turns, without the TRIMMED least and most.

    Unlike a median, it shows what slows a fifth of the turns down. A mean of all would be that of a few turns in which
    something else took the CPU.
    """
    ratios = sorted(log_ratios(base, head))
    cut = round(TRIMMED * len(ratios))
    return -statistics.fmean(ratios[cut : len(ratios) - cut]) if len(ratios) >= FEWEST else None


def log_ratios(base: Mapping[int, float], head: Mapping[int, float]) -> list[float]:
    """log(head / base) of each turn that both sides measured."""
    return [math.log(head[turn] / base[turn]) for turn in base if turn in head]
