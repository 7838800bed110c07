"""Show, or accept, the counts that `gate exact` left beside a baseline because they differ from it.

Only a whole run of trials that ended well, each counted twice alike, leaves any.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["show", "accept"])
    parser.add_argument("baseline", type=Path, nargs="?", default=Path("studies/exact.csv"), metavar="BASELINE.csv")


def run(options: argparse.Namespace) -> None:
    from reports import exact

    exact.renew(options.baseline, accept=options.action == "accept")
