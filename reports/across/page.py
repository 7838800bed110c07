"""Several machines as one HTML page, and as a section of the page of a run that holds several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from bench.record import experiment_lookup
from bench.record.csvfile import write_whole
from reports.across.charts import draw
from reports.across.machines import DEVICE
from reports.across.sheets import LEGEND, sheet
from reports.across.side_by_side import Across
from reports.charts import NARROW
from reports.frame import render


def write(found: Across, out: Path) -> None:
    """Write the page. Raises UsageError if `out` cannot be written."""
    lines = [line for trial in found.trials for line in trial.lines]
    overview = {
        "trials": len(found.trials),
        "machines": list(dict.fromkeys(line.machine for line in lines if line.published is None)),
        "launches": sum(len(line.row["each"]) + len(line.failed) for line in lines),
        "published": len({line.published for line in lines if line.published is not None}),
    }
    name = "Across machines" if found.by == DEVICE else f"Across {found.by}"
    write_whole(out, render("across.html", name=name, overview=overview, across=section(found)))


def section(found: Across) -> dict[str, Any]:
    """The tables and charts of each experiment, and what stands in no table."""
    experiments: dict[Any, list[Any]] = {}
    for trial in found.trials:
        experiments.setdefault(trial.row()["experiment"], []).append(trial)
    return {
        "by": found.by,
        "legend": LEGEND,
        "apart": found.apart,
        "experiments": [
            {
                "name": str(name),
                "question": experiment_lookup.question(trials[0].row()),
                "sheets": [sheet(trial, found.by) for trial in trials],
                "charts": [(each, Markup(each.svg()), Markup(each.svg(NARROW))) for each in draw(trials)],
            }
            for name, trials in experiments.items()
        ],
    }
