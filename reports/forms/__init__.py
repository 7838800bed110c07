"""How do other programs read a verdict? Each file here is a format, found by its name, which is also its option.

`HELP` is the option's help; `render(report)` returns the text.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any

from bench import discovery
from bench.record.columns import columns
from bench.record.csvfile import append_text, write_whole
from reports.arguments import new_file
from reports.verdicts.report import ComparisonReport

UNITS = {column.name: {"1": "share"}.get(column.unit, column.unit) for column in columns("trials")}


def names() -> list[str]:
    """The names of the formats, sorted."""
    return discovery.names(__name__)


def load(name: str) -> Any:
    """The module of this format."""
    return discovery.load(__name__, name, "format")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare an option for each format."""
    group = parser.add_argument_group("files for other programs")
    for name in names():
        group.add_argument(f"--{name.replace('_', '-')}", type=new_file, metavar="FILE", help=load(name).HELP)


def write(options: argparse.Namespace, report: ComparisonReport) -> None:
    """Write the formats whose options were given, each to a file that is replaced, unless it is a job's step summary.

    Raises UsageError if a file cannot be written.
    """
    for name in names():
        if (path := getattr(options, name)) is not None:
            text = load(name).render(report)
            append_text(path, text) if is_step_summary(path) else write_whole(path, text)


def is_step_summary(path: Path) -> bool:
    """Whether the file is the summary of this step of a GitHub job, to which other commands write too."""
    with contextlib.suppress(KeyError, OSError):  # there is none, or not yet
        return os.path.samefile(path, os.environ["GITHUB_STEP_SUMMARY"])
    return False


def unit(metric: str) -> str:
    """The unit of a metric: that of its column; a metric of the exact gate is a count."""
    return UNITS.get(metric, "") or "count"
