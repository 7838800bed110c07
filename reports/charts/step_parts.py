"""The parts of a mean step: compute, exposed communication, data wait.

Where the machine's ceiling is known (reports/tables/ceilings.py), compute is split: the time that the step's FLOPs take
at the ceiling, and the rest, in which the device does something else or the same more slowly.
"""

from __future__ import annotations

import altair as alt
import pandas as pd

from reports.charts import ROW_HEIGHT, Chart, Run, colour, sized
from reports.tables.summary import Row

ORDER = 6
COMPUTE, EXPOSED, WAIT = "compute", "exposed communication", "data wait"
AT_CEILING, REST = "compute at the ceiling", "rest of compute"
PARTS = (COMPUTE, AT_CEILING, REST, EXPOSED, WAIT)


def draw(run: Run) -> Chart | None:
    """Of trials whose parts are known."""
    found = [
        {"trial": run.named(row), "part": part, "ms": 1000 * seconds, "order": PARTS.index(part)}
        for row in run.rows
        for part, seconds in parts(row).items()
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
    if AT_CEILING in set(table["part"]):
        caption += " At the ceiling: the time that the step's FLOPs take at the most that this machine was measured at."
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
    at_ceiling = None if row["ceiling_share"] is None else min(compute, row["ceiling_share"] * time / windows)
    split = {COMPUTE: compute} if at_ceiling is None else {AT_CEILING: at_ceiling, REST: compute - at_ceiling}
    return split | {part: s for part, s in ((EXPOSED, exposed), (WAIT, wait)) if s is not None}
