"""github-action-benchmark's customSmallerIsBetter: the metrics of HEAD that are better the smaller they are."""

from __future__ import annotations

import json
import statistics

from reports import forms
from reports.verdicts.comparison import Comparison
from reports.verdicts.report import ComparisonReport

HELP = "write HEAD's times, memory and counts as github-action-benchmark's customSmallerIsBetter"
LARGER = ("images_per_s", "eval_accuracy", "images_per_j")


def left_out(each: Comparison) -> str:
    """How many launches of HEAD do not count, and why."""
    return "".join(f", {out.head} left out that {out.why}" for out in each.left_out if out.head)


def render(report: ComparisonReport) -> str:
    """Medians of the launches; `range` is half the distance between the lowest and the highest."""
    found = [
        {
            "name": f"{each.trial}: {each.metric}",
            "unit": forms.unit(each.metric),
            "value": statistics.median(each.head),
            "range": f"{(max(each.head) - min(each.head)) / 2:.3g}",
            "extra": f"{each.counting()[1]} launches{left_out(each)}; {each.verdict}; {report.machine}",
        }
        for each in report.comparisons
        if each.head and each.metric not in LARGER
    ]
    return json.dumps(found, indent=1, allow_nan=False) + "\n"
