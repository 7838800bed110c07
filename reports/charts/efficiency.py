"""Scaling efficiency by the number of processes."""

from __future__ import annotations

import altair as alt
import pandas as pd

from reports.charts import GREY, Chart, Run, colour, sized
from reports.tables.summary import titles

ORDER = 5


def draw(run: Run) -> Chart | None:
    """Of trials of several processes that also ran on one."""
    found = [row for row in run.rows if row.get("efficiency") is not None]
    if not found:
        return None
    named = titles(found, without=("processes", "micro_batch"))
    points = [(named(row), row["processes"], 100 * row["efficiency"]) for row in found]
    table = pd.DataFrame(points, columns=["trial", "processes", "efficiency"])
    table["arm"] = [str(row["arm"]) for row in found]
    table["tip"] = [f"{name}, {count} processes: {share:.0f}%" for name, count, share in points]
    base = alt.Chart(table).encode(
        x=alt.X("processes:O", title="processes", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("efficiency:Q", title="efficiency, %", scale=alt.Scale(zero=True)),
        color=colour("arm", run.arms()),
        detail="trial:N",
    )
    whole = alt.Chart(pd.DataFrame({"y": [100]})).mark_rule(strokeDash=[2, 3], color=GREY).encode(y="y:Q")
    caption = "Throughput / (processes x that of one process), from trials that are alike otherwise. Dotted: 100%."
    if any(row["device_name"] == "cpu" for row in found):
        caption += " All processes share one CPU's cores: this is what splitting costs, not what hardware adds."
    layers = alt.layer(whole, base.mark_line(), base.mark_point(size=90, filled=True).encode(description="tip:N"))
    return Chart("efficiency", "Scaling efficiency", caption, sized(layers, 260), list(table["tip"]))
