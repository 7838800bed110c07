"""The head of a table on the page: its best trials, and its accuracies beside the published ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench.column import digits
from bench.record.run_folder import size
from reports.tables.published import Reproduction, worst
from reports.tables.summary import Row, memory_column, titles
from reports.tables.table import Sheet

COLUMNS = {
    "train accuracy": "train_accuracy",
    "eval accuracy": "eval_accuracy",
    "validation accuracy": "validation_accuracy",
    "evaluate on accuracy": "evaluate_on_accuracy",
    "epoch time": "epoch_time_s",
}


def highlights(sheet: Sheet, verdicts: Sequence[Sequence[Reproduction]]) -> dict[str, Any]:
    """One line about a table: how many trials ended well, the best of them, and how many verdicts of each kind."""
    named, good = titles(sheet.rows), [row for row in sheet.rows if row["status"] == "ok"]
    memory = memory_column(good)
    counts = Counter(filter(None, (worst(list(each)) for each in verdicts)))
    return {
        "trials": f"{len(good)} of {len(sheet.rows)} ok" if len(good) < len(sheet.rows) else f"{len(good)} ok",
        "all_ok": len(good) == len(sheet.rows),
        "fastest": _best(good, named, "images_per_s", max, digits, " images/s"),
        "leanest": _best(good, named, memory, min, lambda value: size(int(value)), ""),
        "accurate": _best(good, named, "eval_accuracy", max, lambda value: f"{100 * value:.1f}", "%"),
        "verdicts": [(name, counts[name]) for name in ("reproduced", "differs", "not comparable") if counts[name]],
    }


def _best(rows: Sequence[Row], named: Any, name: str, choose: Any, form: Any, unit: str) -> dict[str, str]:
    """The trial with the largest or smallest value of a column, and its spread; empty if no trial has a value."""
    known = [row for row in rows if row[name] is not None and math.isfinite(row[name])]
    if not known:
        return {}
    row = choose(known, key=lambda each: each[name])
    return {"trial": named(row), "value": form(row[name]) + unit, "spread": _spread(row, name, form)}


def _spread(row: Row, name: str, form: Any) -> str:
    low, high = map(form, row["spread"].get(name, (row[name], row[name])))
    return f"({low}..{high})" if low != high else ""


def beside(rows: Sequence[Row], verdicts: Sequence[Sequence[Reproduction]]) -> list[dict[str, str]]:
    """A line for each published figure of each trial."""
    named = titles(rows)
    return [
        {"trial": named(row), "figure": each.figure, "verdict": each.verdict, "why": each.why, **numbers(row, each)}
        for row, found in zip(rows, verdicts, strict=True)
        for each in found
    ]


def numbers(row: Row, verdict: Reproduction) -> dict[str, str]:
    """The published figure, ours with its spread, and their difference; an unknown number is empty."""
    times = verdict.figure == "epoch time"
    factor, unit = (1.0, " s") if times else (100.0, "%")

    def form(value: float) -> str:
        return f"{factor * value:.4g}"

    here = difference = ""
    if verdict.here is not None and math.isfinite(verdict.here):
        spread = _spread(row, COLUMNS[verdict.figure], form)
        here = f"{form(verdict.here)}{unit} {spread}".strip()
        difference = "" if times else f"{factor * (verdict.here - verdict.published):+.2f}"
    allowed = "" if verdict.allowed is None else f"{factor * verdict.allowed:.2f}"
    return {"published": form(verdict.published) + unit, "here": here, "difference": difference, "allowed": allowed}
