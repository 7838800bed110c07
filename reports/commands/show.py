"""Print the trials of a run folder in tables, beside the published figures."""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the --out folder of a run")


def run(options: argparse.Namespace) -> None:
    from reports import read
    from reports.tables import table

    trials, skipped = read.readable_trials(options.run)
    table.show(trials, read.ceilings(options.run))
    read.say_skipped(skipped, "trials")
