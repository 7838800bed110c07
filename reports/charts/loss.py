"""Training loss by epoch, and how any quantity is drawn by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from reports.charts import Chart, Run, colour, sized

PLACE = 2


def draw(run: Run) -> Chart | None:
    """Of trials of two epochs or more."""
    found = points(run, "train_loss", 1, "")
    if not found:
        return None
    count = len({point["line"] for point in found})
    said = f"{count} launches, a curve each, coloured by arm: mean cross-entropy while training."
    return Chart("loss", "Loss by epoch", said, lines(run, found, "training loss"))


def points(run: Run, column: str, factor: float, unit: str) -> list[dict[str, Any]]:
    """A column of epochs.csv for these launches; none where there is only one epoch."""
    launches = run.launches()
    found = run.epochs[run.epochs["launch_id"].isin(list(launches)) & run.epochs[column].notna()]
    if found["epoch"].nunique() < 2:
        return []
    each = zip(found["launch_id"], found["epoch"], found[column], strict=True)
    rows = ((launches[launch], launch, epoch, factor * value) for launch, epoch, value in each)
    return [point(row["arm"], run.named(row), launch, epoch, value, unit) for row, launch, epoch, value in rows]


def point(
    arm: object, trial: str, line: str, epoch: int, value: float, unit: str, source: str = "here"
) -> dict[str, Any]:
    """Epochs count from 1 here, as sources have it."""
    tip = f"{trial}, epoch {epoch + 1}: {value:.4g}{unit}"
    return {"arm": str(arm), "line": line, "epoch": int(epoch) + 1, "value": float(value), "source": source, "tip": tip}


def lines(run: Run, found: Sequence[dict[str, Any]], what: str) -> Any:
    """A curve for each `line`, dashed where it is published."""
    dashes = alt.Scale(domain=["here", "published"], range=[[1, 0], [5, 4]])
    base = alt.Chart(pd.DataFrame(found)).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(nice=False)),
        y=alt.Y("value:Q", title=what, scale=alt.Scale(zero=False)),
        color=colour("arm", [*run.arms(), *(point["arm"] for point in found)]),
        detail="line:N",
    )
    drawn = base.mark_line(strokeWidth=2).encode(strokeDash=alt.StrokeDash("source:N", legend=None, scale=dashes))
    return sized(alt.layer(drawn, base.mark_point(size=25, filled=True).encode(description="tip:N")), 280)
