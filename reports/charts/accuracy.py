"""Evaluation accuracy by epoch, beside the source's own curve."""

from __future__ import annotations

from typing import Any

from bench.record import facts
from reports.charts import Chart, Run
from reports.charts import loss as curves

PLACE = 1


def draw(run: Run) -> Chart | None:
    """Of trials of two epochs or more."""
    ours = curves.points(run, "eval_accuracy", 100, "%")
    if not ours:
        return None
    theirs = published(run)
    said = f"A curve for each trial, coloured by arm. {curves.curves_said(run)}".strip()
    said += " Dashed: the source's own, of which the table says whether it can be compared." if theirs else ""
    drawing = curves.lines(run, [*ours, *theirs], "evaluation accuracy, %")
    return Chart("accuracy", "Accuracy by epoch", said, drawing)


def published(run: Run) -> list[dict[str, Any]]:
    """The points of the sources' curves of these arms."""
    found = []
    for experiment, arm in dict.fromkeys((row["experiment"], row["arm"]) for row in run.rows):
        source, title = facts.published(experiment, arm), f"{arm}, published"
        for epoch, share in enumerate(source.eval_accuracies if source else ()):
            found.append(curves.point(title, title, epoch, (100 * share,) * 3, "%", "published"))
    return found
