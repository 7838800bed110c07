"""Accuracy on the training images by epoch, beside the source's own curve."""

from __future__ import annotations

from reports.charts import Chart, Run, accuracy

ORDER = 2


def draw(run: Run) -> Chart | None:
    """Of trials with two epochs or more."""
    return accuracy.chart(run, "train", "train_accuracy", "Training accuracy by epoch", "training accuracy, %")
