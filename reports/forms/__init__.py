"""What was judged, for other programs: each file here is a form, found by its name, which is also the option's.

`HELP` says what it is for; `render(report)` gives its text.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from typing import Any

from bench.record.columns import columns
from bench.record.csvfile import write_whole
from reports.arguments import new_file
from reports.verdicts.report import ComparisonReport

UNITS = {column.name: {"1": "share"}.get(column.unit, column.unit) for column in columns("trials")}


def names() -> list[str]:
    """The forms there are, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Any:
    """The module of this form."""
    return importlib.import_module(f"{__name__}.{name}")


def arguments(parser: argparse.ArgumentParser) -> None:
    """An option for each form."""
    for name in names():
        parser.add_argument(f"--{name.replace('_', '-')}", type=new_file, metavar="FILE", help=load(name).HELP)


def write(options: argparse.Namespace, report: ComparisonReport) -> None:
    """Write the forms that were asked for. UsageError: one cannot be written."""
    for name in names():
        if (path := getattr(options, name)) is not None:
            write_whole(path, load(name).render(report))


def unit(metric: str) -> str:
    """The unit of a column, or of a count that an exact baseline holds."""
    return UNITS.get(metric, "") or "count"
