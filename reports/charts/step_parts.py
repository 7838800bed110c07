"""The parts of a mean step: compute, exposed communication, data wait."""

from __future__ import annotations

import altair as alt
import pandas as pd

from reports.charts import ROW_HEIGHT, Chart, Run, colour, sized
from reports.tables.summary import Row

ORDER = 6
PARTS = ("compute", "exposed communication", "data wait")


def draw(run: Run) -> Chart | None:
    """Of trials whose parts are known."""
    found = [
        {"trial": run.named(row), "part": part, "ms": 1000 * seconds, "order": order}
        for row in run.rows
        for order, (part, seconds) in enumerate(parts(row).items())
    ]
    if not found:
        return None
    table = pd.DataFrame(found)
    table["tip"] = [f"{row['trial']}: {row['part']} {row['ms']:.4g} ms" for row in found]
    order = list(dict.fromkeys(str(row["trial"]) for row in found))
    base = alt.Chart(table).mark_bar(height=14)
    drawing = base.encode(
        x=alt.X("ms:Q", title="mean time in a step, ms"),
        y=alt.Y("trial:N", title=None, sort=order),
        color=colour("part", [part for part in PARTS if part in set(table["part"])]),
        order="order:Q",
        description="tip:N",
    )
    caption = "Each part is the longest among the processes: where processes wait for each other, parts overlap."
    return Chart(
        "step_parts", "Where a step's time goes", caption, sized(drawing, ROW_HEIGHT * len(order)), list(table["tip"])
    )


def parts(row: Row) -> dict[str, float]:
    """Part -> seconds in a mean step. One process computes whenever it does not wait for data."""
    wait, windows, time = row["data_wait_s"], row["measured_windows"], row["measured_time_s"]
    if wait is None or not windows or not time:
        return {}
    exposed = row["exposed_communication_s"]
    if row["compute_s"] is None and row["processes"] != 1:
        return {}
    compute = time / windows - wait if row["compute_s"] is None else row["compute_s"]
    return {part: s for part, s in zip(PARTS, (compute, exposed, wait), strict=True) if s is not None}
