"""The whole report as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from reports import forms
from reports.verdicts.comparison import Comparison, Reasons
from reports.verdicts.report import ComparisonReport

HELP = "write everything as JSON"
FORMAT = 2  # raised if a reader of the old format would misread the new one


def render(report: ComparisonReport) -> str:
    """A JSON object; an unknown value is null."""
    found = {
        "format": FORMAT,
        "title": report.title,
        "machine": report.machine,
        "exit_code": report.code,
        "margin": report.margin,
        "accuracy_margin": report.accuracy_margin,
        "level": report.level,
        "verdicts": report.counts(),
        "cautions": list(report.cautions),
        "conclusions": list(report.conclusions),
        "comparisons": [comparison(each, report) for each in report.comparisons],
        "reasons": [reasons(each) for each in report.reasons],
    }
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def comparison(each: Comparison, report: ComparisonReport) -> dict[str, Any]:
    """One comparison with its change and the 95% interval of it, in `change_unit`.

    share: (head - base) / base; points: 100 (head - base), of an accuracy over seeds.
    """
    shown = None
    if each.change is not None and report.margin is not None:
        shown = finite(each.change.smallest_shown(report.margin_of(each), report.level_of(each)))
    low, high = each.change.limits() if each.change else (None, None)
    return {
        "trial": each.trial,
        "metric": each.metric or None,
        "unit": forms.unit(each.metric) if each.metric else None,
        "verdict": each.verdict,
        "why": each.why or None,
        "base": side(each.base),
        "head": side(each.head),
        "launches": dict(zip(("base", "head"), each.counting(), strict=True)),
        "left_out": [{"base": out.base, "head": out.head, "why": out.why} for out in each.left_out],
        "paired": each.paired,
        "in_turns": each.in_turns,
        "seeds": list(each.seeds) or None,
        "change_unit": each.change.UNIT if each.change else None,
        "change": finite(each.change.size()) if each.change else None,
        "interval": [finite(low), finite(high)] if low is not None and high is not None else None,
        "could_show": shown,
    }


def reasons(why: Reasons) -> dict[str, Any]:
    """A trial's exact counts that differ, and the operations whose time differs most where both sides have traces."""
    return {
        "trial": why.trial,
        "summary": why.summary,
        "notes": list(why.notes),
        "counts": [{"metric": each.metric, "change": each.why} for each in why.counts],
        "about_times": why.about_times or None,
        "operations": [
            {
                "operation": each.operation,
                "unit": "s",
                "base": side(each.base),
                "head": side(each.head),
                "difference": each.difference_s(),
                "calls": {"base": each.calls[0], "head": each.calls[1]},
            }
            for each in why.operations
        ],
    }


def side(values: Sequence[float]) -> dict[str, Any] | None:
    """The value of each launch, or of each seed, and their median."""
    return {"median": statistics.median(values), "launches": list(values)} if values else None


def finite(value: float) -> float | None:
    """The value; None if it is too large, since JSON has no infinity."""
    return value if abs(value) < 1e300 else None
