"""Find change points over many runs of one machine, for nightly use: an alert, which blocks nothing.

The exit code is 0 whatever is found; needs the extra `history` (pip install -e '.[history]').
"""

from __future__ import annotations

import argparse
from pathlib import Path

from reports.arguments import share


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="run folders, or folders of them")
    parser.add_argument("--margin", type=share, default=0.02, metavar="SHARE", help="a change that matters (2%%)")


def run(options: argparse.Namespace) -> None:
    from reports.verdicts import history

    history.run(options.folders, options.margin)
