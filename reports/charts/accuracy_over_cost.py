"""Accuracy over what training took until then, for each effective batch: which plan is the cheapest to the target?

What it took is time, energy, or money; the time that is paid for is the same (see reports/tables/prices.py).
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from bench.column import digits
from bench.record import to_target
from reports.charts import GREY, Chart, Run, colour, sized
from reports.tables import prices
from reports.tables.summary import Row
from reports.tables.to_target import NEVER, by_trial, how_many, names, values

ORDER = 1
LONGEST = 500  # epochs that a curve shows; of more, every second, third, ...
Trial = tuple[str, list[Row]]  # a name, and the launches with all seeds
Curves = Mapping[Any, Sequence[tuple[float, float]]]  # launch -> what it took and the accuracy, after each epoch


@dataclass(frozen=True)
class Quantity:
    """What adds up while a launch trains.

    `name` is what titles call it, `of_epoch` the column of epochs.csv that is added up, `until` its sum until the
    target, `axis` the title of its axis, `reached` says a value in words. `factor` gives what each launch's sums are
    multiplied by; None: it is not known.
    """

    name: str
    of_epoch: str
    until: str
    axis: str
    reached: str
    factor: Callable[[Row], float | None] = lambda launch: 1.0


TIME = Quantity("time", "epoch_time_s", "time_to_target_s", "training time, s", "after {} s")
ENERGY = Quantity("energy", "energy_j", "energy_to_target_j", "energy while training, J", "after {} J")
PRICE = Quantity(
    "price", "epoch_time_s", prices.TO_TARGET, "price of training", "for {}", lambda launch: prices.price(launch, 1.0)
)


def draw(run: Run) -> list[Chart]:
    """Of launches with two epochs or more that have the quantity."""
    return [chart for quantity in (TIME, ENERGY, PRICE) for chart in charts(run, quantity)]


def charts(run: Run, quantity: Quantity) -> list[Chart]:
    """A chart for each effective batch."""
    groups = by_trial([*run.rows, *run.diverged])
    trials = list(zip(names(groups), groups, strict=True))
    factors = {launch["launch_id"]: quantity.factor(launch) for each in groups for launch in each}
    curves = {
        launch: sums(own, quantity.of_epoch, factor)
        for launch, own in run.epochs.groupby("launch_id", sort=False)
        if (factor := factors.get(launch)) is not None
    }
    trials = [(name, drawn(each, curves)) for name, each in trials if any(curves.get(r["launch_id"]) for r in each)]
    trials.sort(key=lambda trial: trial[1][0]["effective_batch"] or 0)
    batches = itertools.groupby(trials, key=lambda trial: trial[1][0]["effective_batch"] or 0)
    return [chart(batch, list(own), curves, quantity) for batch, own in batches]


def drawn(launches: Sequence[Row], curves: Curves) -> list[Row]:
    """Those with a curve, and those that diverged before they had one: they count as launches without the target."""
    return [row for row in launches if curves.get(row["launch_id"]) or row["status"] == to_target.DIVERGED]


def sums(epochs: pd.DataFrame, column: str, factor: float) -> list[tuple[float, float]]:
    """(factor x the column's sum, the accuracy in percent) after each epoch; none if one of them lacks a value."""
    rows = epochs.sort_values("epoch")
    whole = len(rows) > 1 and list(rows["epoch"]) == list(range(len(rows))) and rows[column].notna().all()
    if not whole:
        return []
    before = float(rows[to_target.PASS].fillna(0).sum())
    if before and column != "epoch_time_s":  # what the features took besides is not known
        return []
    points = zip(rows[column].cumsum() + before, rows["eval_accuracy"], strict=True)
    known = [(factor * float(total), 100 * float(share)) for total, share in points if not pd.isna(share)]
    return known[:: 1 + len(known) // LONGEST] if len(known) > 1 else []


def chart(batch: int, trials: Sequence[Trial], curves: Curves, quantity: Quantity) -> Chart:
    """The chart of one effective batch: a curve for each launch, and at the target a point for each trial."""
    points = [
        {"trial": name, "launch": launch["launch_id"], "x": x, "y": y}
        for name, launches in trials
        for launch in launches
        for x, y in curves.get(launch["launch_id"], ())
    ]
    x = alt.X("x:Q", title=quantity.axis, scale=alt.Scale(zero=True))
    y = alt.Y("y:Q", title="evaluation accuracy, %", scale=alt.Scale(zero=False))
    ink = colour("trial", [name for name, _ in trials])
    lines = alt.Chart(pd.DataFrame(points)).mark_line(strokeWidth=1.5, opacity=0.5)
    layers = [lines.encode(x=x, y=y, color=ink, detail="launch:N")]
    reached = sorted((mark(trial, quantity) for trial in trials if has_target(trial)), key=lambda each: each["x"])
    caption = "A curve for each launch, coloured by trial; left is cheaper."
    if reached:
        point = f"the median of the launches' {quantity.name} to it, with their range as a line"
        caption += f" Dashed: the target. Point: {point}."
        layers += at_target(reached, quantity.axis, y, ink)
    if quantity is PRICE and (money := prices.said([launch for _, launches in trials for launch in launches])):
        caption += f" The {money}."
    drawing = sized(alt.layer(*layers), 320)
    return Chart(
        f"accuracy_over_{quantity.name}_{batch}",
        f"Accuracy over {quantity.name}, effective batch {batch}",
        caption,
        drawing,
        [each["tip"] for each in reached],
    )


def at_target(reached: Sequence[dict[str, Any]], axis: str, y: Any, ink: Any) -> list[Any]:
    """The layers of the target: its line, and a point and a range for each trial that has a median there."""
    targets = pd.DataFrame({"y": sorted({each["y"] for each in reached})})
    layers = [alt.Chart(targets).mark_rule(strokeDash=[4, 4], color=GREY).encode(y=y)]
    marks, x = [each for each in reached if each["x"] < NEVER], alt.X("x:Q", title=axis)
    for number, each in enumerate(marks):
        # One beneath the other: at one height they would hide each other.
        base, down = alt.Chart(pd.DataFrame([each])), 10 * (number - (len(marks) - 1) / 2)
        low = alt.X("low:Q", title=axis)
        layers.append(base.mark_rule(strokeWidth=3, yOffset=down).encode(x=low, x2="high:Q", y=y, color=ink))
        point = base.mark_point(size=140, filled=True, opacity=1, yOffset=down)
        layers.append(point.encode(x=x, y=y, color=ink, description="tip:N"))
    return layers


def has_target(trial: Trial) -> bool:
    """Whether the trial's launches say if they reached one."""
    return any(launch["target_accuracy"] is not None and to_target.is_known(launch) for launch in trial[1])


def mark(trial: Trial, quantity: Quantity) -> dict[str, Any]:
    """Where a trial reaches its target: the median over its launches, and the range of those that do."""
    name, launches = trial
    found = values(launches, quantity.until) or [NEVER]
    share = launches[0]["target_accuracy"]
    middle, ends = statistics.median(found), [each for each in found if each < NEVER]
    low, high = (min(ends), max(ends)) if ends else (NEVER, NEVER)
    spread = f" ({digits(low)} .. {digits(high)} of those that did)" if low < high else ""
    said = f"{quantity.reached.format(digits(middle))}{spread}" if middle < NEVER else "not reached by most"
    tip = f"{name}: {to_target.share(share)} {said}, {how_many(launches)} launches reached it"
    return {"trial": name, "x": middle, "y": 100 * share, "low": low, "high": high, "tip": tip}
