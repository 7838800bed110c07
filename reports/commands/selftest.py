"""Measure how far the gate can be trusted on a machine.

From many pairs of launches of one trial there, it prints, as Markdown, how often `python -m launch gate` would have
raised a false alarm, and how often it would have found slow-downs of 1 to 10%. To make the launches: `python -m launch
gate HEAD HEAD EXPERIMENT --arm ARM --pairs 300 --all-pairs --out RUN`. Gates on a HEAD that is really slower may be
given as well, each with a name: --slowed 2%=RUN 3%=RUN.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.arguments import at_least
from reports.arguments import run_folder, share

GROUP = "Did something change"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", type=run_folder, metavar="RUN", help="the --out folder of a gate on equal commits, one trial"
    )
    parser.add_argument(
        "--slowed", type=named, nargs="+", default=[], metavar="NAME=RUN", help="gates on a HEAD that is slower"
    )
    parser.add_argument(
        "--pairs", type=at_least(12), default=32, metavar="N", help="as for `launch gate` (default: 32)"
    )
    parser.add_argument(
        "--budget-pairs", type=at_least(3), metavar="N", help="after how many pairs the time of its --budget is up"
    )
    parser.add_argument(
        "--margin", type=share, default=0.01, metavar="SHARE", help="a change that matters (default: 1%%)"
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, metavar="N", help="seed of the random choices (default: 0)"
    )


def named(text: str) -> tuple[str, Path]:
    """NAME=RUN. Raises ArgumentTypeError if a part is missing."""
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=RUN, such as 2%=runs/slower")
    return name, Path(folder)


def run(options: argparse.Namespace) -> None:
    from reports.verdicts import selftest

    gate = selftest.Gate(options.pairs, options.margin, options.budget_pairs)
    print(selftest.report(options.run, dict(options.slowed), gate, options.seed))
