"""Evaluation accuracy by epoch, beside the source's own curve."""

from __future__ import annotations

from typing import Any

from bench.record import experiment_lookup
from reports.charts import Chart, Run
from reports.charts import loss as curves

ORDER = 1


def draw(run: Run) -> Chart | None:
    """Of trials with two epochs or more."""
    return chart(run, "eval", "accuracy", "Accuracy by epoch", "evaluation accuracy, %")


def chart(run: Run, part: str, kind: str, title: str, what: str) -> Chart | None:
    """Curves of an accuracy; `part` is train or eval."""
    ours = curves.points(run, f"{part}_accuracy", 100, "%")
    if not ours:
        return None
    theirs = published(run, part)
    caption = f"A curve for each trial, coloured by arm. {curves.curves_caption(run)}".strip()
    caption += " Dashed: the source's own, of which the table says whether it can be compared." if theirs else ""
    found = [*ours, *theirs]
    return Chart(kind, title, caption, curves.lines(run, found, what), curves.last(found))


def published(run: Run, part: str) -> list[dict[str, Any]]:
    """The points of the curves that the sources report for these arms."""
    found = []
    of_arms = {(row["experiment"], row.get("experiment_hash"), row["arm"]): row for row in run.rows}
    for row in of_arms.values():
        source, title = experiment_lookup.published(row), f"{row['arm']}, published"
        for epoch, share in enumerate(getattr(source, f"{part}_accuracies") if source else ()):
            found.append(curves.point(title, title, epoch, (100 * share,) * 3, "%"))
    return found
