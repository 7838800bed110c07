"""Print the trials of a run in tables, beside published figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from reports.arguments import price_argument, target_argument

GROUP = "Look at a run"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the --out folder of a run")
    target_argument(parser)
    price_argument(parser)


def run(options: argparse.Namespace) -> None:
    from reports import read
    from reports.across import sheets, side_by_side
    from reports.tables import prices, table, to_target
    from reports.verdicts import arms

    trials, skipped = read.readable_trials(options.run)
    if options.target_accuracy is not None:
        epochs, lost = read.epochs(options.run)
        trials = to_target.with_target(trials, epochs, options.target_accuracy)
        read.say_lost(lost, "epochs")
    trials = prices.with_prices(trials, options.price)
    table.show(trials, arms.conclusions, read.ceilings(options.run))
    if across := side_by_side.of_run(trials, options.run):
        print(f"Across machines, by {across.by}:\n")
        sheets.show(across, apart=False)
    read.say_lost(skipped, "trials")
