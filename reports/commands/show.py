"""Print the trials of a run in tables, beside published figures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UsageError
from reports.arguments import price_argument, run_folder, target_argument, wide_argument

if TYPE_CHECKING:
    import pandas as pd

GROUP = "Look at a run"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=run_folder, metavar="RUN", help="the --out folder of a run")
    parser.add_argument(
        "--where", type=condition, nargs="+", default=[], metavar="COLUMN=VALUE", help="only trials with these values"
    )
    wide_argument(parser)
    target_argument(parser)
    price_argument(parser)


def condition(text: str) -> tuple[str, str]:
    """COLUMN=VALUE. Raises ArgumentTypeError if a part is missing."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not COLUMN=VALUE, such as model=resnet20")
    return name.replace("-", "_"), value


def where(trials: pd.DataFrame, conditions: Sequence[tuple[str, str]], folder: Path) -> pd.DataFrame:
    """The trials with these values; None: an empty cell. Raises UsageError if there is no such column or trial."""
    import pandas as pd

    for name, value in conditions:
        if name not in trials.columns:
            raise UsageError(f"show: trials.csv has no column {name!r} for --where; give one such as model")
        own = trials[name].map(lambda cell: "None" if pd.isna(cell) else str(cell))
        trials = trials[[same(cell, value) for cell in own]]
        if trials.empty:
            there = ", ".join(own.unique()) or "nothing"
            raise UsageError(f"show: no trial in {folder} has {name}={value}; there is {there}")
    return trials


def same(cell: str, value: str) -> bool:
    """Whether they are one value: 0 and 0.0 are, and True and true."""
    try:
        return float(cell) == float(value)
    except ValueError:
        return cell.lower() == value.lower()


def run(options: argparse.Namespace) -> None:
    from reports import read
    from reports.across import sheets, side_by_side
    from reports.tables import prices, table, to_target
    from reports.verdicts import arms

    trials, skipped = read.ended_trials(options.run)
    trials = where(trials, options.where, options.run)
    if options.target_accuracy is not None:
        epochs, lost = read.epochs(options.run)
        trials = to_target.with_target(trials, epochs, options.target_accuracy)
        read.say_lost(lost, "epochs")
    trials = prices.with_prices(trials, options.price)
    table.show(trials, arms.conclusions, read.ceilings(options.run), options.wide)
    if across := side_by_side.of_run(trials, options.run):
        print(f"Across machines, by {across.by}:\n")
        sheets.show(across, apart=False, wide=options.wide)
    read.say_lost(skipped, "trials")
