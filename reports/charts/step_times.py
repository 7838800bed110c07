"""The distribution of each trial's step times, and its outliers."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from reports.charts import BLUE, ORANGE, RED, ROW_HEIGHT, Chart, Run, sized

ORDER = 4
WORST = 5  # outliers of each trial that are drawn
WIDE = 3  # longest / shortest time; above it the axis is logarithmic, or bars would be too narrow to see


def draw(run: Run) -> Chart | None:
    """Of all measured steps of all launches of each trial."""
    launches = run.launches()
    mine = run.steps[run.steps["launch_id"].isin(list(launches))]
    trial = mine["launch_id"].map({launch: run.named(row) for launch, row in launches.items()})
    times = {name: 1000 * found for name, found in mine["step_time_s"].groupby(trial)}
    named = [run.named(row) for row in run.rows if run.named(row) in times]
    if not named:
        return None
    boxes = [box(name, times[name]) for name in named]
    worst = [
        {"trial": name, "ms": ms, "tip": f"{name}: a step of {ms:.4g} ms"}
        for name in named
        for ms in beyond(times[name]).nlargest(WORST)
    ]
    outliers = sum(len(beyond(each)) for each in times.values())
    caption = "Bar: the middle half; line: 5 to 95%; orange: the median; circles: the longest of each trial's outliers "
    caption += (
        f"(at most {WORST}), more than 1.5 bars beyond it: {outliers} of {sum(map(len, times.values()))} steps in all. "
    )
    caption += "Warm-up is left out."
    drawing = sized(alt.layer(*drawn(boxes, worst, named)), ROW_HEIGHT * len(boxes))
    return Chart("step_times", "Step times", caption, drawing, [each["tip"] for each in boxes])


def beyond(times: pd.Series) -> pd.Series:
    """The slow outliers by Tukey's rule: more than 1.5 interquartile ranges above the third quartile."""
    first, third = times.quantile([0.25, 0.75])
    return times[times > third + 1.5 * (third - first)]


def box(name: str, times: pd.Series) -> dict[str, Any]:
    """A trial's quantiles, in ms."""
    low, first, middle, third, high = times.quantile([0.05, 0.25, 0.5, 0.75, 0.95])
    tip = f"{name}: median {middle:.4g} ms, middle half {first:.4g} .. {third:.4g}, 5 to 95% {low:.4g} .. {high:.4g}, "
    tip += f"{(count := len(beyond(times)))} outlier{'' if count == 1 else 's'} in {len(times)} steps"
    return {"trial": name, "low": low, "first": first, "median": middle, "third": third, "high": high, "tip": tip}


def drawn(boxes: list[dict[str, Any]], worst: list[dict[str, Any]], order: list[str]) -> list[Any]:
    """The layers: lines, bars, medians and outliers."""
    y = alt.Y("trial:N", title=None, sort=order)
    base = alt.Chart(pd.DataFrame(boxes)).encode(y=y, description="tip:N")
    values = [each[end] for each in boxes for end in ("low", "high")] + [each["ms"] for each in worst]
    scale = alt.Scale(type="log" if max(values) > WIDE * min(values) else "linear", zero=False, nice=False, padding=10)
    title = f"time of a step, ms{' (logarithmic)' if scale.type == 'log' else ''}"
    axis: dict[str, Any] = {"title": title, "scale": scale, "axis": alt.Axis(format=".4~g", labelOverlap="greedy")}
    layers = [
        base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q", **axis), x2="high:Q"),
        base.mark_bar(height=12, color=BLUE).encode(x=alt.X("first:Q", **axis), x2="third:Q"),
        base.mark_tick(size=16, thickness=3, color=ORANGE).encode(x=alt.X("median:Q", **axis)),
    ]
    if worst:
        points = alt.Chart(pd.DataFrame(worst)).mark_point(size=25, color=RED)
        layers.append(points.encode(x=alt.X("ms:Q", **axis), y=y, description="tip:N"))
    return layers
