"""Write a run as one page for a browser.

It needs no network, and has tables, charts, and how to repeat the run.
"""

from __future__ import annotations

import argparse

from reports.arguments import new_file, price_argument, run_folder, target_argument

GROUP = "Look at a run"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=run_folder, metavar="RUN", help="the --out folder of a run")
    target_argument(parser)
    price_argument(parser)
    parser.add_argument("-o", "--out", type=new_file, metavar="FILE.html", help="where to (default: RUN/report.html)")


def run(options: argparse.Namespace) -> None:
    from reports import page

    out = options.out or options.run / "report.html"
    page.write(options.run, out, options.target_accuracy, options.price)
    print(out)
