"""Join run folders into a new one that has each launch once.

They may be of several machines.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from reports.arguments import run_folder

GROUP = "Look at a run"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=run_folder, nargs="+", metavar="RUN", help="the --out folder of a run")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="NEW_FOLDER", help="a folder that does not exist yet"
    )


def run(options: argparse.Namespace) -> None:
    from reports import merge

    merge.merge(options.runs, options.out.absolute())
