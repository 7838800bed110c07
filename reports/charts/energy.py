"""Energy of an image."""

from __future__ import annotations

import altair as alt
import pandas as pd

from reports.charts import GREEN, ROW_HEIGHT, Chart, Run, sized

PLACE = 6


def draw(run: Run) -> Chart | None:
    """Of trials on devices that tell it."""
    found = [(run.named(row), row["energy_per_image_j"]) for row in run.rows if row["energy_per_image_j"] is not None]
    if not found:
        return None
    table = pd.DataFrame(found, columns=["trial", "j"])
    table["tip"] = [f"{name}: {joules:.4g} J" for name, joules in found]
    drawing = alt.Chart(table).mark_bar(height=14, color=GREEN)
    drawing = drawing.encode(
        x=alt.X("j:Q", title="energy of a training image, J"),
        y=alt.Y("trial:N", title=None, sort=[name for name, _ in found]),
        description="tip:N",
    )
    return Chart("energy", "Energy", "Of all that the power reading covers.", sized(drawing, ROW_HEIGHT * len(found)))
