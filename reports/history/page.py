"""Writes the history of many runs as one HTML page: a chart for each trial and metric, with its change points.

Runs are drawn in the order in which they began, at equal distances, as the search for change points takes them.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
from markupsafe import Markup

from bench.column import Shown, digits
from bench.record.columns import columns
from bench.record.csvfile import write_whole
from reports.charts import BLUE, GREEN, ORANGE, RED, Chart, sized
from reports.frame import render
from reports.history.change_points import FEWEST_RUNS, Alert, Part, Series, median
from reports.history.run_points import Point

WIDTH, HEIGHT = 360, 170  # one drawing for all screens: readable on a phone, several side by side elsewhere
MARKS, FEWEST_MARKS, ALL_MARKS = 120, 40, 10_000  # at most in a chart, at least there, on the page; each takes 0.3 KB
TICKS = 2  # besides the first
ROWS, ROW = 3, 13  # of the labels of change points, so that neighbours do not overlap; and the height of one
UNFOLDED = 12  # trials; of more, those without a change point are folded


def write(found: Sequence[Series], name: str, margin: float, out: Path) -> None:
    """Write the page of these series. Raises UsageError if `out` cannot be written."""
    anchors = {id(each): f"c{number}" for number, each in enumerate(found, start=1)}
    metrics = list(dict.fromkeys(each.metric for each in found))
    marks = max(FEWEST_MARKS, min(MARKS, ALL_MARKS // max(1, len(found))))
    grouped = [list(each) for _, each in itertools.groupby(found, key=lambda each: each.trial)]
    page = render(
        "history.html",
        name=name,
        overview=overview(found),
        heads=list(map(heading, metrics)),
        trials=[trial(each, metrics, anchors, marks) for each in grouped],
        changes=[line(each, alert, anchors[id(each)]) for each, alert in ordered(found)],
        unfolded=len(grouped) <= UNFOLDED,
        short=sum(each.short for each in found),
        fewest=FEWEST_RUNS,
        margin=f"{100 * margin:.3g}%",
    )
    write_whole(out, page)


def overview(found: Sequence[Series]) -> dict[str, Any]:
    """The numbers at the head of the page. Runs are those of the longest series."""
    began = sorted({point.began for each in found for point in each.points()} - {""})
    return {
        "runs": max((len(each.points()) for each in found), default=0),
        "series": len(found),
        "counts": counts(found),
        "first": began[0] if began else "",
        "last": began[-1] if began else "",
        "machines": list(dict.fromkeys(each.machine for each in found)),
    }


def counts(found: Sequence[Series]) -> dict[str, int]:
    """worse -> number of change points, likewise better; what there is none of is left out."""
    counter = Counter(verdict(alert) for each in found for alert in each.alerts)
    return {name: counter[name] for name in ("worse", "better") if counter[name]}


def verdict(alert: Alert) -> str:
    return "worse" if alert.worse else "better"


def ordered(found: Sequence[Series]) -> list[tuple[Series, Alert]]:
    """All change points: those for the worse first, and of these the newest."""
    alerts = [(each, alert) for each in found for alert in each.alerts]
    alerts.sort(key=lambda pair: pair[1].since().began, reverse=True)
    return sorted(alerts, key=lambda pair: not pair[1].worse)


def line(each: Series, alert: Alert, anchor: str) -> dict[str, Any]:
    """A change point's line in the table."""
    since = alert.since()
    return {
        "anchor": anchor,
        "trial": each.trial,
        "metric": each.metric,
        "verdict": verdict(alert),
        "change": f"{alert.change():+.1%}",
        "since": when(since),
        "commit": since.commit,
        "unit": heading(each.metric),
        "levels": [
            (number(each.metric, median(part)), spread(each.metric, part)) for part in (alert.before, alert.after)
        ],
    }


def trial(each: Sequence[Series], metrics: Sequence[str], anchors: dict[int, str], marks: int) -> dict[str, Any]:
    """One trial's part of the page: its title, a cell for each of these metrics, and its charts."""
    by_metric = {one.metric: one for one in each}
    latest = max(each, key=lambda one: len(one.points())).points()
    drawn = [(anchors[id(one)], one, chart(one, marks)) for one in each]
    return {
        "title": each[0].trial,
        "anchor": f"t{anchors[id(each[0])]}",
        "runs": len(latest),
        "last": latest[-1],
        "changed": any(one.alerts for one in each),
        "cells": [cell(by_metric[name], anchors) if name in by_metric else None for name in metrics],
        "charts": [(anchor, one, picture, Markup(picture.svg(WIDTH))) for anchor, one, picture in drawn],
    }


def cell(each: Series, anchors: dict[int, str]) -> dict[str, Any]:
    """The latest level of a series, and how often it changed."""
    return {"anchor": anchors[id(each)], "level": number(each.metric, median(each.parts[-1])), "counts": counts([each])}


@functools.cache
def shown(metric: str) -> Shown:
    """How tables show the metric; one that no table shows has its name and unit as heading."""
    column = next(column for column in columns("trials") if column.name == metric)
    return column.shown or Shown(f"{metric}, {column.unit}" if column.unit else metric)


def heading(metric: str) -> str:
    """The metric and its unit in words: step ms p50."""
    return shown(metric).heading.replace("\n", " ")


def number(metric: str, value: float) -> str:
    """A value in the unit of the heading."""
    return digits(value * shown(metric).factor)


def level(metric: str, part: Part) -> str:
    """Median, lowest, highest and number of the runs: 12.3 (12.1 .. 12.6, 60 runs)."""
    return f"{number(metric, median(part))} ({spread(metric, part)})"


def spread(metric: str, part: Part) -> str:
    """Lowest, highest and number of the runs."""
    values = [point.value for point in part]
    runs = f"{len(part)} run{'' if len(part) == 1 else 's'}"
    return f"{number(metric, min(values))} .. {number(metric, max(values))}, {runs}"


def when(point: Point) -> str:
    """The minute in which a run began: 2026-03-01 03:00."""
    return point.began[:16].replace("T", " ") or "at an unknown time"


def chart(each: Series, marks: int) -> Chart:
    """The runs of a series, with the levels between its change points. Of many runs, some in a row are one mark."""
    group = math.ceil(len(each.points()) / marks)
    dots = [dot for start, part in each.placed() for dot in grouped(each, part, start, group)]
    levels = [
        {"from": start + 0.5, "to": start + len(part) + 0.5, "value": shown(each.metric).factor * median(part)}
        | {"tip": f"{when(part[0])} to {when(part[-1])}: {level(each.metric, part)}"}
        for start, part in each.placed()
    ]
    dot = "a run" if group == 1 else f"the median of up to {group} runs in a row; shaded: their range"
    drawing = alt.layer(*layers(each, pd.DataFrame(dots), pd.DataFrame(levels), changed(each)))
    figures = [change_text(each, alert) for alert in each.alerts] + [str(one["tip"]) for one in levels]
    return Chart(
        "history",
        f"{each.trial}: {each.metric}",
        f"{heading(each.metric)}. A dot is {dot}.",
        sized(drawing, HEIGHT),
        figures,
    )


def grouped(each: Series, part: Part, start: int, group: int) -> Iterator[dict[str, Any]]:
    """The marks of a part that begins with run `start`, each of at most `group` runs; none has runs of two parts."""
    factor = shown(each.metric).factor
    count = math.ceil(len(part) / group)
    ends = [len(part) * n // count for n in range(count + 1)]
    for first, stop in itertools.pairwise(ends):
        some = part[first:stop]
        values = [factor * point.value for point in some]
        tip = f"{when(some[0])}, commit {some[0].commit}: {number(each.metric, some[0].value)}"
        if len(some) > 1:
            commits = f"commits {some[0].commit} to {some[-1].commit}"
            tip = f"{when(some[0])} to {when(some[-1])}, {commits}: {level(each.metric, some)}"
        place = {"run": start + (first + 1 + stop) / 2, "part": start, "value": factor * median(some)}
        yield place | {"low": min(values), "high": max(values), "tip": tip}


def changed(each: Series) -> pd.DataFrame:
    """The change points: where each is, between the runs before and after it."""
    middle = len(each.points()) / 2
    return pd.DataFrame(
        {
            "place": alert.start + 0.5,
            "left": alert.start > middle,
            "top": number % ROWS * ROW,
            "verdict": verdict(alert),
            "label": f"{alert.change():+.1%}",
            "tip": change_text(each, alert),
        }
        for number, alert in enumerate(each.alerts)
    )


def change_text(each: Series, alert: Alert) -> str:
    """A change point in words."""
    since = alert.since()
    return f"{verdict(alert)} since {when(since)} (commit {since.commit}): {alert.change():+.1%}"


def layers(each: Series, dots: pd.DataFrame, levels: pd.DataFrame, changes: pd.DataFrame) -> Iterator[Any]:
    """Ranges, levels, dots, and the change points with their size."""
    points = each.points()
    ticks = sorted({1 + (len(points) - 1) * n // TICKS for n in range(TICKS + 1)})
    # JSON, since a label is put into an expression.
    labels = json.dumps({str(tick): points[tick - 1].began[:10] or "unknown" for tick in ticks})
    scale = alt.Scale(domain=[0.5, len(points) + 0.5], nice=False)
    axis = alt.Axis(values=ticks, labelExpr=f"{labels}[datum.value]", grid=False, labelFlush=True)
    y: dict[str, Any] = {
        "title": heading(each.metric),
        "scale": alt.Scale(zero=False, padding=10),
        "axis": alt.Axis(format=".5~r"),
    }
    base = alt.Chart(dots).encode(x=alt.X("run:Q", title=None, scale=scale, axis=axis))
    yield base.mark_area(opacity=0.2, color=BLUE).encode(y=alt.Y("low:Q", **y), y2="high:Q", detail="part:N")
    drawn = alt.Chart(levels).mark_rule(strokeWidth=4, color=ORANGE)
    yield drawn.encode(x=alt.X("from:Q", scale=scale), x2="to:Q", y=alt.Y("value:Q", **y), description="tip:N")
    size = 30 if len(dots) < MARKS // 2 else 15
    # Above the levels, or the pointer would not reach them.
    yield base.mark_point(size=size, filled=True, opacity=1, color=BLUE).encode(
        y=alt.Y("value:Q", **y), description="tip:N"
    )
    if changes.empty:
        return
    verdicts = alt.Scale(domain=["worse", "better"], range=[RED, GREEN])
    colours = alt.Color("verdict:N", scale=verdicts, legend=None)
    rule = alt.Chart(changes).mark_rule(strokeWidth=2, strokeDash=[5, 3])
    yield rule.encode(x=alt.X("place:Q", scale=scale), color=colours, description="tip:N")
    for (left, top), some in changes.groupby(["left", "top"]):
        text = alt.Chart(some).mark_text(
            baseline="top", align="right" if left else "left", dx=-5 if left else 5, fontSize=12, fontWeight=600
        )
        yield text.encode(
            x=alt.X("place:Q", scale=scale), y=alt.value(top), color=colours, text="label:N", description="tip:N"
        )
