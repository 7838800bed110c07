"""Write the dictionary of all CSV columns into a Markdown file.

It stands between two marks, <!-- columns: begin --> and <!-- columns: end -->.
"""

from __future__ import annotations

import argparse
from pathlib import Path

GROUP = "Look at a run"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.md", help="the Markdown file, which has the marks")


def run(options: argparse.Namespace) -> None:
    from reports import dictionary

    dictionary.write(options.file, "columns", dictionary.markdown())
