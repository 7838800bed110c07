"""Memory against throughput: large micro-batches against accumulation, with the frontier and the memory limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from bench.record.run_folder import size
from reports.charts import GREY, RED, Chart, Run, colour, kind, kinds, sized
from reports.tables.summary import GPU_MEMORY, Row, memory_column

ORDER = 0
GIB = 2**30
NEAR = 4  # times the most memory of a trial; a limit beyond that would squeeze the trials into a corner


def draw(run: Run) -> Chart | None:
    """Of two or more trials: memory of tensors on GPUs, of processes on a CPU."""
    name = memory_column(run.rows)
    found = [row for row in run.rows if row[name] and row["images_per_s"]]
    if len(found) < 2:
        return None
    best = frontier([(row[name], row["images_per_s"]) for row in found])
    table = pd.DataFrame([point(run, row, name, number in best) for number, row in enumerate(found)])
    x = alt.X(
        "memory:Q",
        title="most memory of a GPU's tensors, GiB" if name == GPU_MEMORY else "most memory of a process, GiB",
        axis=alt.Axis(format=".4~g"),
        scale=alt.Scale(zero=False, padding=20),
    )
    near, far = limits(found, NEAR * table["memory"].max())
    drawing = alt.layer(*drawn(run, found, table, x), *near)
    named = ", ".join(table[table["best"]].sort_values("memory")["name"])
    caption = f"Dotted: the frontier, above which no trial has more throughput in as little memory ({named})."
    caption += " Red: the memory limit." if near else ""
    caption += "".join(f" A limit of {each} is beyond what is drawn." for each in far)
    return Chart("memory", "Memory against throughput", caption, sized(drawing, 320), list(table["tip"]))


def point(run: Run, row: Row, name: str, best: bool) -> dict[str, Any]:
    """A trial's figures in the chart."""
    speed = row["images_per_s"]
    low, high = row["spread"].get("images_per_s", (speed, speed))
    spread = f" ({low:.0f} .. {high:.0f})" if low < high else ""
    return {
        "arm": str(row["arm"]),
        "name": run.named(row),
        "kind": kind(row),
        "memory": row[name] / GIB,
        "images": speed,
        "low": low,
        "high": high,
        "best": best,
        "tip": f"{run.named(row)}: {speed:.0f}{spread} images/s, {size(int(row[name]))}",
    }


def drawn(run: Run, rows: Sequence[Row], table: pd.DataFrame, x: Any) -> list[Any]:
    """The frontier, the spreads and the points."""
    scale = alt.Scale(zero=False, padding=20)
    base = alt.Chart(table)
    line = base.transform_filter("datum.best").mark_line(interpolate="step-after", strokeDash=[2, 3], color=GREY)
    spread = base.mark_rule(strokeWidth=1.5)
    points = base.mark_point(size=90, filled=True, opacity=0.9)
    arms = colour("arm", run.arms())
    y = alt.Y("images:Q", title="images/s", scale=scale)
    return [
        line.encode(x, y, order="memory:Q"),
        spread.encode(x, alt.Y("low:Q", title="images/s", scale=scale), y2="high:Q", color=arms),
        points.encode(x, y, color=arms, shape=kinds(rows), description="tip:N"),
    ]


def limits(rows: Sequence[Row], end: float) -> tuple[list[Any], list[str]]:
    """The trials' memory limits: those up to `end` GiB as layers of the chart, the others as text."""
    found = sorted({int(row["memory_limit_bytes"]) for row in rows if row["memory_limit_bytes"]})
    near = [{"limit": limit / GIB, "tip": f"limit: {size(limit)}"} for limit in found if limit / GIB <= end]
    far = [size(limit) for limit in found if limit / GIB > end]
    if not near:
        return [], far
    rule = alt.Chart(pd.DataFrame(near)).mark_rule(color=RED, strokeWidth=2)
    return [rule.encode(x="limit:Q", description="tip:N")], far


def frontier(points: Sequence[tuple[float, float]]) -> set[int]:
    """The indexes of the points (memory, throughput) that no other dominates: no slower with no more memory."""
    return {
        number
        for number, (memory, speed) in enumerate(points)
        if not any(m <= memory and s >= speed and (m, s) != (memory, speed) for m, s in points)
    }
