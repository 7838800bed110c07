"""The FLOP/s of the trials against what their machine was measured at.

A roofline would also need the bytes that a step moves between the device and its memory. Nobody counts them, so that
there is no such axis here.
"""

from __future__ import annotations

import altair as alt
import pandas as pd

from bench.column import digits
from bench.record.ceiling_columns import in_number_format
from reports.charts import ROW_HEIGHT, Chart, Run, colour, sized

ORDER = 5
TITLE = "TFLOP/s of all devices, on a logarithmic scale"
SCALE = alt.Scale(type="log", nice=False, padding=20)


def draw(run: Run) -> Chart | None:
    """Of trials with a ceiling: one point each, and a line at each number format's ceiling."""
    found = [row for row in run.rows if row["ceiling_share"] is not None and row["ceiling_share"] > 0]
    if not found:
        return None
    points = [
        {
            "trial": run.named(row),
            "format": in_number_format(row["precision"], row["tf32"]),
            "rate": row["model_flops_per_s"] / 1e12,
            "ceiling": row["ceiling_flops_per_s"] / 1e12,
            "tip": f"{run.named(row)}: {digits(row['model_flops_per_s'] / 1e12)} TFLOP/s, {row['ceiling_share']:.1%} "
            f"of {digits(row['ceiling_flops_per_s'] / 1e12)}",
        }
        for row in found
    ]
    table = pd.DataFrame(points)
    order = list(dict.fromkeys(str(point["trial"]) for point in points))
    formats = sorted(set(table["format"]))
    x, y = alt.X("rate:Q", title=TITLE, scale=SCALE), alt.Y("trial:N", title=None, sort=order)
    base, colours = alt.Chart(table), colour("format", formats)
    gap = base.mark_rule(strokeWidth=1.5, strokeDash=[2, 3]).encode(x, y, x2="ceiling:Q", color=colours)
    ceiling = base.mark_tick(thickness=3, size=ROW_HEIGHT, opacity=1).encode(
        alt.X("ceiling:Q", title=TITLE, scale=SCALE), y, color=colours
    )
    drawn = base.mark_point(size=90, filled=True, opacity=1).encode(x, y, color=colours, description="tip:N")
    caption = (
        "Points: the model's own FLOP/s. Ticks: the most that a matrix product or a convolution reached on this "
        "machine at that number format, with as many devices."
    )
    drawing = sized(alt.layer(gap, ceiling, drawn), ROW_HEIGHT * len(order))
    return Chart("ceilings", "FLOP/s against the measured ceiling", caption, drawing, list(table["tip"]))
