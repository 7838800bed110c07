"""Show how results differ from a baseline, or accept them.

With a BASELINE.csv: the counts of operations that `gate exact` wrote beside it. It writes them only for a run whose
trials all ended well and were counted twice with equal results. With a run folder: its times, memory and accuracy. Each
machine and its versions have a baseline of their own under --to; a run with a failed trial is never accepted.

Exit code 0: it is shown or accepted, whatever differs; 2: the request cannot be met; 70: an error that nobody foresaw,
whose traceback is in the file that is named.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from reports.arguments import share

GROUP = "Did something change"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["show", "accept"], help="show what differs, or accept it")
    parser.add_argument(
        "baseline",
        type=Path,
        nargs="?",
        default=Path("studies/exact.csv"),
        metavar="BASELINE.csv|RUN",
        help="a baseline of counts, or a run folder (default: %(default)s)",
    )
    parser.add_argument(
        "--to",
        type=Path,
        default=Path("baselines"),
        metavar="FOLDER",
        help="folder of the machines' baselines (default: baselines)",
    )
    parser.add_argument(
        "--margin", type=share, default=0.02, metavar="SHARE", help="a change that matters (default: 2%%)"
    )


def run(options: argparse.Namespace) -> None:
    from reports.verdicts import baselines, exact

    accept = options.action == "accept"
    if options.baseline.is_dir():
        baselines.renew(options.baseline, options.to, options.margin, accept)
    else:
        exact.renew(options.baseline, accept)
