"""Training loss by epoch, and how any quantity is drawn by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from reports.charts import PUBLISHED, Chart, Run, colour, kind, kinds, sized
from reports.tables.summary import Row

ORDER = 3
MARKS, TICKS = 50, 10  # at most, of a curve and of the axis
LARGEST = 1e300  # a larger number would overflow as a percentage


def draw(run: Run) -> Chart | None:
    """Of trials with two epochs or more."""
    found = points(run, "train_loss", 1, "")
    if not found:
        return None
    caption = f"A curve for each trial, coloured by arm: mean cross-entropy while training. {curves_caption(run)}"
    return Chart("loss", "Loss by epoch", caption.strip(), lines(run, found, "training loss"), last(found))


def curves_caption(run: Run) -> str:
    """The sentence that explains curves and bands if a trial was launched several times; else empty."""
    several = any(len(row["each"]) > 1 for row in run.rows)
    return "Of several launches the median, with the lowest and the highest as a band." if several else ""


def points(run: Run, column: str, factor: float, unit: str) -> list[dict[str, Any]]:
    """The points of a column of epochs.csv for each trial, over its launches; none if there is only one epoch."""
    launches = run.launches()
    drawable = (run.epochs["epoch"] >= 0) & (run.epochs[column].abs() <= LARGEST)
    found = run.epochs[run.epochs["launch_id"].isin(list(launches)) & drawable.fillna(False)]
    if found["epoch"].nunique() < 2:
        return []
    number_of = {id(row): number for number, row in enumerate(run.rows)}
    trial = found["launch_id"].map({launch: number_of[id(row)] for launch, row in launches.items()})
    over = (factor * found[column].astype(float)).groupby([trial, found["epoch"].astype(int)])
    rows = zip(over.median().items(), over.min(), over.max(), strict=True)
    return [
        point(run.rows[number]["arm"], run.named(run.rows[number]), epoch, (value, low, high), unit, run.rows[number])
        for ((number, epoch), value), low, high in rows
    ]


def point(
    arm: object, trial: str, epoch: int, values: tuple[float, float, float], unit: str, row: Row | None = None
) -> dict[str, Any]:
    """A trial's median, lowest and highest after an epoch. Epochs count from 1 here, as in sources.

    `row` is the trial's; without it the point is a source's.
    """
    value, low, high = values
    spread = f" ({low:.4g} .. {high:.4g})" if low < high else ""
    tip = f"{trial}, epoch {epoch + 1}: {value:.4g}{unit}{spread}"
    named = {"arm": str(arm), "line": trial, "epoch": epoch + 1, "tip": tip}
    named |= {"kind": kind(row) if row else PUBLISHED, "source": "here" if row else PUBLISHED}
    return {**named, "value": value, "low": low, "high": high}


def last(found: Sequence[dict[str, Any]]) -> list[str]:
    """The last point of each curve, as text."""
    return [point["tip"] for point in {point["line"]: point for point in found}.values()]


def lines(run: Run, found: Sequence[dict[str, Any]], what: str) -> Any:
    """A curve for each `line` with its band, dashed if it is published; MARKS marks on it at most."""
    dashes = alt.Scale(domain=["here", PUBLISHED], range=[[1, 0], [5, 4]])
    end = max(point["epoch"] for point in found)
    ticks = list(range(1, end + 1, math.ceil(end / TICKS)))
    base = alt.Chart(pd.DataFrame(found)).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(values=ticks, format="d"), scale=alt.Scale(nice=False)),
        y=alt.Y("value:Q", title=what, axis=alt.Axis(format=".4~g"), scale=alt.Scale(zero=False)),
        color=colour("arm", [*run.arms(), *(point["arm"] for point in found)]),
        detail="line:N",
    )
    low = alt.Y("low:Q", title=what, axis=alt.Axis(format=".4~g"), scale=alt.Scale(zero=False))
    band = base.mark_area(opacity=0.15).encode(y=low, y2="high:Q")
    drawn = base.mark_line(strokeWidth=2).encode(strokeDash=alt.StrokeDash("source:N", legend=None, scale=dashes))
    every = math.ceil(end / MARKS)
    marks = base.transform_filter(f"datum.epoch % {every} == 0").mark_point(size=40, filled=True)
    marks = marks.encode(shape=kinds(run.rows), description="tip:N")
    return sized(alt.layer(band, drawn, marks), 280)
