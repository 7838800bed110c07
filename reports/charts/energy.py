"""Energy per training image."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from reports.charts import GREEN, ROW_HEIGHT, Chart, Run, sized
from reports.tables.summary import Row

ORDER = 7


def draw(run: Run) -> Chart | None:
    """Of trials whose energy was measured."""
    found = [point(run, row) for row in run.rows if row["energy_per_image_j"] is not None]
    if not found:
        return None
    table = pd.DataFrame(found)
    y = alt.Y("trial:N", title=None, sort=[each["trial"] for each in found])
    base = alt.Chart(table).encode(y=y, description="tip:N")
    x = "energy of a training image, J"
    bars = base.mark_bar(height=14, color=GREEN).encode(x=alt.X("j:Q", title=x))
    spread = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=x), x2="high:Q")
    caption = "Of all that the power reading covers. Line: the lowest and the highest of several launches."
    drawing = sized(alt.layer(bars, spread), ROW_HEIGHT * len(found))
    return Chart("energy", "Energy", caption, drawing, list(table["tip"]))


def point(run: Run, row: Row) -> dict[str, Any]:
    """A trial's figures in the chart."""
    joules = row["energy_per_image_j"]
    low, high = row["spread"].get("energy_per_image_j", (joules, joules))
    spread = f" ({low:.4g} .. {high:.4g})" if low < high else ""
    return {
        "trial": run.named(row),
        "j": joules,
        "low": low,
        "high": high,
        "tip": f"{run.named(row)}: {joules:.4g} J{spread}",
    }
