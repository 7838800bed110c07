"""Accuracy against throughput: what an arm gains, and what it costs."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from reports.charts import Chart, Run, colour, kind, kinds, sized
from reports.tables.summary import Row

ORDER = 1
SPEED, ACCURACY = "images/s", "evaluation accuracy after the last epoch, %"


def draw(run: Run) -> Chart | None:
    """Of two or more evaluated trials."""
    found = [row for row in run.rows if row["eval_accuracy"] is not None and row["images_per_s"]]
    if len(found) < 2:
        return None
    table = pd.DataFrame([point(run, row) for row in found])
    arms, base = colour("arm", run.arms()), alt.Chart(table)
    x, y = axis(alt.X, "images", SPEED), axis(alt.Y, "accuracy", ACCURACY)
    rule = base.mark_rule(strokeWidth=1.5)
    across = rule.encode(axis(alt.X, "slowest", SPEED), y, x2="fastest:Q", color=arms)
    along = rule.encode(x, axis(alt.Y, "worst", ACCURACY), y2="best:Q", color=arms)
    points = base.mark_point(size=90, filled=True, opacity=0.9)
    drawn = points.encode(x, y, color=arms, shape=kinds(found), description="tip:N")
    caption = "Accurate is up, fast is right. Lines: the lowest and the highest of several launches."
    drawing = sized(alt.layer(across, along, drawn), 320)
    return Chart("cost", "Accuracy against throughput", caption, drawing, list(table["tip"]))


def axis(channel: Any, field: str, title: str) -> Any:
    """An axis that begins near the smallest number, not at 0."""
    return channel(f"{field}:Q", title=title, scale=alt.Scale(zero=False, padding=20))


def point(run: Run, row: Row) -> dict[str, Any]:
    """A trial's figures in the chart."""
    speed, accuracy = row["images_per_s"], 100 * row["eval_accuracy"]
    slowest, fastest = row["spread"].get("images_per_s", (speed, speed))
    worst, best = (100 * end for end in row["spread"].get("eval_accuracy", (row["eval_accuracy"],) * 2))
    times = f" ({slowest:.0f} .. {fastest:.0f})" if slowest < fastest else ""
    shares = f" ({worst:.1f} .. {best:.1f})" if worst < best else ""
    return {
        "arm": str(row["arm"]),
        "kind": kind(row),
        "images": speed,
        "slowest": slowest,
        "fastest": fastest,
        "accuracy": accuracy,
        "worst": worst,
        "best": best,
        "tip": f"{run.named(row)}: {accuracy:.1f}%{shares} at {speed:.0f}{times} images/s",
    }
