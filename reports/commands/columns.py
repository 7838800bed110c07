"""Write the dictionary of all CSV columns into a Markdown file, between its marks."""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.md")


def run(options: argparse.Namespace) -> None:
    from reports import dictionary

    dictionary.write(options.file, "columns", dictionary.markdown())
