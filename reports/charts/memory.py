"""Memory against throughput: batch size against accumulation, with the frontier and the limit drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from bench.record import size
from reports.charts import GREY, RED, Chart, Run, colour, sized
from reports.summary import Row, in_words

PLACE = 0
GIB = 2**30
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]


def draw(run: Run) -> Chart | None:
    """Of two trials or more: memory of tensors on GPUs, of processes on a CPU."""
    on_gpu = any(row["peak_allocated_bytes"] for row in run.rows)
    column = "peak_allocated_bytes" if on_gpu else "peak_rss_bytes"
    found = [row for row in run.rows if row[column] and row["images_per_s"]]
    if len(found) < 2:
        return None
    best = frontier([(row[column], row["images_per_s"]) for row in found])
    table = pd.DataFrame([point(run, row, column, number in best) for number, row in enumerate(found)])
    x = alt.X(
        "memory:Q",
        title="most memory of a GPU's tensors, GiB" if on_gpu else "most memory of a process, GiB",
        scale=alt.Scale(zero=False, padding=20),
    )
    layers = [*drawn(run, table, x), *limits(found)]
    named = "; ".join(table[table["best"]].sort_values("memory")["tip"])
    said = f"Dotted: the frontier, above which no trial has more throughput in as little memory ({named})."
    if len(layers) > 3:
        said += " Red: the memory limit."
    return Chart("memory", "Memory against throughput", said, sized(alt.layer(*layers), 320))


def point(run: Run, row: Row, column: str, best: bool) -> dict[str, Any]:
    """What is drawn of a trial."""
    speed = row["images_per_s"]
    low, high = row["spread"].get("images_per_s", (speed, speed))
    spread = f" ({low:.0f} .. {high:.0f})" if low < high else ""
    return {
        "arm": str(row["arm"]),
        "kind": ", ".join(in_words(name, row[name]) for name in ("precision", "processes")),
        "memory": row[column] / GIB,
        "images": speed,
        "low": low,
        "high": high,
        "best": best,
        "tip": f"{run.named(row)}: {speed:.0f}{spread} images/s, {size(int(row[column]))}",
    }


def drawn(run: Run, table: pd.DataFrame, x: Any) -> list[Any]:
    """The frontier, the spreads and the points."""
    scale = alt.Scale(zero=False, padding=20)
    kinds = sorted(set(table["kind"]))
    shapes = alt.Scale(domain=kinds, range=[SHAPES[number % len(SHAPES)] for number in range(len(kinds))])
    base = alt.Chart(table)
    line = base.transform_filter("datum.best").mark_line(interpolate="step-after", strokeDash=[2, 3], color=GREY)
    spread = base.mark_rule(strokeWidth=1.5)
    points = base.mark_point(size=90, filled=True, opacity=0.9)
    arms = colour("arm", run.arms())
    y = alt.Y("images:Q", title="images/s", scale=scale)
    return [
        line.encode(x, y, order="memory:Q"),
        spread.encode(x, alt.Y("low:Q", title="images/s", scale=scale), y2="high:Q", color=arms),
        points.encode(x, y, color=arms, shape=alt.Shape("kind:N", title=None, scale=shapes), description="tip:N"),
    ]


def limits(rows: Sequence[Row]) -> list[Any]:
    """The memory limits that trials were under."""
    found = sorted({row["memory_limit_bytes"] for row in rows if row["memory_limit_bytes"]})
    if not found:
        return []
    table = pd.DataFrame([{"limit": limit / GIB, "tip": f"limit: {size(int(limit))}"} for limit in found])
    return [alt.Chart(table).mark_rule(color=RED, strokeWidth=2).encode(x="limit:Q", description="tip:N")]


def frontier(points: Sequence[tuple[float, float]]) -> set[int]:
    """Which of (memory, throughput) no other beats: less memory and as much throughput, or more in as little."""
    return {
        number
        for number, (memory, speed) in enumerate(points)
        if not any(m <= memory and s >= speed and (m, s) != (memory, speed) for m, s in points)
    }
