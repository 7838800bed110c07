"""Find change points in the runs of many nights on one machine.

They alert and block nothing: the exit code is always 0. Needs the extra `history` (pip install -e '.[history]').
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

    history.show(history.find(options.folders, options.margin))
