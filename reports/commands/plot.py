"""Write the charts of a run as PNG and SVG files."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.terminal import say
from reports.arguments import price_argument, run_folder, target_argument

GROUP = "Look at a run"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=run_folder, metavar="RUN", help="the --out folder of a run")
    target_argument(parser)
    price_argument(parser)
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="where to (default: RUN/plots)")


def run(options: argparse.Namespace) -> None:
    from reports import plot

    out = options.out or options.run / "plots"
    written = plot.write(options.run, out, options.target_accuracy, options.price)
    for path in written:
        print(path)
    if not written:
        say(f"note: no chart: no trial in {options.run} ended well with two epochs, or with steps that were measured")
