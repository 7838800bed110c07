"""A run as one page that needs no network, no server and only a few lines of script, which sort and filter."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from bench.record import facts, write_whole
from reports import published, read, summary, table
from reports.charts import draw
from reports.summary import Row
from reports.table import Sheet

HERE = Path(__file__).parent / "pages"


def write(folder: Path, out: Path) -> None:
    """Write the page of a run folder. UsageError: the folder is none, or `out` cannot be written."""
    trials, lost_trials = read.readable_trials(folder)
    epochs, lost_epochs = read.epochs(folder)
    steps, lost_steps = read.steps(folder)
    sections = [{**section(sheet, epochs, steps), "anchor": n} for n, sheet in enumerate(table.sheets(trials))]
    lost = {"trials": lost_trials, "epochs": lost_epochs, "steps": lost_steps}
    style, script = (HERE / "page.css").read_text(), (HERE / "page.js").read_text()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.html").render(
        name=folder.absolute().name,
        sections=sections,
        overview=overview([summary.known(row) for row in trials.to_dict("records")]),
        lost=", ".join(read.count(rows, file) for file, rows in lost.items() if rows),
        rule=published.RULE,
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; style-src '{digest(style)}'; script-src '{digest(script)}'",
    )
    write_whole(out, page)


def digest(text: str) -> str:
    """As a content security policy names what it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def overview(rows: Sequence[Row]) -> dict[str, Any]:
    """What ran, in numbers."""
    statuses = [str(row["status"]) for row in rows]
    return {
        "launches": len(rows),
        "experiments": len({row["experiment"] for row in rows}),
        "statuses": {status: statuses.count(status) for status in dict.fromkeys(statuses)},
        "machines": list(dict.fromkeys(table.machine_line(row) for row in rows)),
        "commits": list(dict.fromkeys(str(row["commit"]) for row in rows if row["commit"])),
        "began": min((str(row["started_at"]) for row in rows if row["started_at"]), default=""),
    }


def section(sheet: Sheet, epochs: pd.DataFrame, steps: pd.DataFrame) -> dict[str, Any]:
    """One experiment on one machine: its question, table, charts and commands."""
    counts = eval_counts(epochs)
    verdicts = [published.judge(row, counts.get(row["launch_id"])) for row in sheet.rows]
    commands = (facts.command(row) for row in sheet.rows)
    return {
        "sheet": sheet,
        "experiment": str(sheet.rows[0]["experiment"]),
        "question": facts.question(sheet.rows[0]["experiment"]),
        "heads": [" ".join(head.split()) for head in sheet.heads],
        "lines": list(zip(sheet.lines, sheet.marks, verdicts, strict=True)),
        "judged": any(verdict.said for verdict in verdicts),
        "charts": [(chart, Markup(chart.svg())) for chart in draw(sheet.rows, epochs, steps)],
        "commands": list(dict.fromkeys(command for command in commands if command)),
    }


def eval_counts(epochs: pd.DataFrame) -> dict[str, int]:
    """Launch -> the images that its accuracy is of."""
    known = epochs[epochs["eval_images"].notna()]
    return {str(launch): int(count) for launch, count in zip(known["launch_id"], known["eval_images"], strict=True)}
