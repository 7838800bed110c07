"""The tables for other programs and papers: CSV and JSON with every figure in its unit, Markdown and LaTeX as shown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from bench.record.csvfile import cell
from bench.record.settings import settings_columns
from reports.across.machines import Line, Trial
from reports.across.measures import MEASURES
from reports.across.sheets import LEGEND, remarks, sheets
from reports.across.side_by_side import Across
from reports.markdown import escaped
from reports.tables import export

FORMAT = 1  # raised if a reader of the old format would misread the new one
LOW, HIGH = "_low", "_high"  # behind a figure's name: the two that stand in brackets behind it


def record(line: Line, trial: Trial) -> dict[str, Any]:
    """A line's figures by their names, and what it is; None is not known."""
    first, figure = trial.lines[0], line.published
    found: dict[str, Any] = {
        "machine": line.machine,
        "published": figure is not None,
        "launches": len(line.row["each"]),
        "failed": len(line.failed),
    }
    for each in MEASURES:
        found[each.name] = finite(each.value(line, first))
        if each.shown.spread:
            found[each.name + LOW], found[each.name + HIGH] = map(finite, each.ends(line, first) or (None, None))
    source = {"source": figure.source, "date": figure.date} if figure is not None else {"source": None, "date": None}
    return {**found, **source, "notes": "; ".join(remarks(line, first)) or None}


def finite(value: float | None) -> float | None:
    """The value; None if it is too large for a float, since JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None


def as_json(found: Across) -> str:
    """An object with `measures` (unit and meaning), `trials` with their settings and machines, and `apart`."""
    names = [column.name for column in settings_columns() if column.name not in ("repeat", found.by)]
    trials = [
        {
            "trial": trial.title,
            "settings": {name: trial.row()[name] for name in names},
            "unlike": list(trial.unlike),
            "machines": [record(line, trial) for line in trial.lines],
        }
        for trial in found.trials
    ]
    meanings = {each.name: {"unit": each.unit, "meaning": each.text, "low_and_high": each.between} for each in MEASURES}
    apart = [{"trial": one.trial, "machine": one.machine, "why": one.why} for one in found.apart]
    whole = {"format": FORMAT, "by": found.by, "measures": meanings, "trials": trials, "apart": apart}
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def as_csv(found: Across) -> str:
    """A row for each trial and machine; what stands in none of them is left to the other forms."""
    rows = [
        {"trial": trial.title, "by": found.by, **record(line, trial), "unlike": "; ".join(trial.unlike)}
        for trial in found.trials
        for line in trial.lines
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([list(rows[0]), *([cell(value) for value in row.values()] for row in rows)])
    return text.getvalue()


def markdown(found: Across) -> str:
    """A table for each trial, with its notes."""
    text = f"{export.markdown(sheets(found))}\n{escaped(LEGEND)}\n"
    apart = "".join(f"- {escaped(f'{one.trial} on {one.machine}: {one.why}')}\n" for one in found.apart)
    return f"{text}\nNot side by side:\n\n{apart}" if apart else text


def latex(found: Across) -> str:
    r"""A tabular for each trial, for \usepackage{booktabs}; the rest as comments."""
    apart = [f"not side by side: {one.trial} on {one.machine}: {one.why}" for one in found.apart]
    comments = "".join(f"% {' '.join(text.split())}\n" for text in (LEGEND, *apart))
    return export.latex(sheets(found)) + comments


FORMS: Mapping[str, Callable[[Across], str]] = {
    "csv": as_csv,
    "json": as_json,
    "latex": latex,
    "markdown": markdown,
}
