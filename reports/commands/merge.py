"""Join run folders, as of several machines, into a new one in which each launch is once."""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the --out folder of a run")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="NEW_FOLDER", help="a folder that is not there yet"
    )


def run(options: argparse.Namespace) -> None:
    from reports import merge

    merge.merge(options.runs, options.out.absolute())
