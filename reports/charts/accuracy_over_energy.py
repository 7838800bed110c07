"""Accuracy over the energy of training, for each effective batch."""

from __future__ import annotations

from reports.charts import Chart, Run, accuracy_over_time

ORDER = 1


def draw(run: Run) -> list[Chart]:
    """Of launches with two epochs or more whose energy was measured."""
    return accuracy_over_time.charts(run, "energy_j", "energy_to_target_j", "energy", "energy while training, J", "J")
