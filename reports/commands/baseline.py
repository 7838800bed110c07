"""Show, or accept, what differs from a baseline.

Of a BASELINE.csv, the counts that `gate exact` left beside it; only a whole run whose trials ended well, each counted
twice alike, leaves any. Of a run folder, its times, memory and accuracy, which are kept for each machine and its
versions under --to; a run with a trial that did not end well is never kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from reports.arguments import share


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["show", "accept"])
    parser.add_argument("baseline", type=Path, nargs="?", default=Path("studies/exact.csv"), metavar="BASELINE.csv|RUN")
    parser.add_argument("--to", type=Path, default=Path("baselines"), metavar="FOLDER", help="of machines (baselines)")
    parser.add_argument("--margin", type=share, default=0.02, metavar="SHARE", help="a change that matters (2%%)")


def run(options: argparse.Namespace) -> None:
    from reports.verdicts import baselines, exact

    accept = options.action == "accept"
    if options.baseline.is_dir():
        baselines.renew(options.baseline, options.to, options.margin, accept)
    else:
        exact.renew(options.baseline, accept)
