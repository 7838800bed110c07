"""Writes the charts of a run as files."""

from __future__ import annotations

import re
from pathlib import Path

from bench.errors import UsageError
from bench.record.csvfile import write_whole
from reports import read
from reports.charts import draw
from reports.tables import table, to_target
from reports.tables.prices import Prices, with_prices


def write(folder: Path, out: Path, target: float | None = None, prices: Prices | None = None) -> list[Path]:
    """Write each chart as PNG and SVG, and return the paths. `target`: the accuracy to mark; None: the trials' own.

    Raises UsageError if no run wrote `folder`, if a price is of a device that it has not, or if `out` cannot be
    written.
    """
    trials, epochs, steps = read.all_that_can_be(folder)
    trials = with_prices(to_target.with_target(trials, epochs, target), prices)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}; choose another -o") from error
    written = []
    for number, sheet in enumerate(table.sheets(trials, read.ceilings(folder)), start=1):
        name = re.sub(r"[^\w-]", "_", str(sheet.rows[0]["experiment"]), flags=re.ASCII)[:64]
        for chart in draw(sheet.rows, epochs, steps):
            for ending, content in chart.files().items():
                path = out / f"{number}_{name}_{chart.kind}.{ending}"
                write_whole(path, content)
                written.append(path)
    return written
