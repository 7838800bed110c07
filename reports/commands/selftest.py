"""Measure how far the gate can be trusted on a machine, from many equal launches of one trial there.

Prints, as Markdown, how often `python -m launch gate` would have raised a false alarm, how often it would have found
slow-downs of 1 to 10%, and whether it finds what it claims to find. To make the launches:
`python -m launch run EXPERIMENT --arm ARM --repeats 200 --out RUN`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from reports.arguments import at_least, share


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the --out folder of a run of one trial")
    parser.add_argument("--pairs", type=at_least(3), default=16, metavar="N", help="as for `launch gate` (16)")
    parser.add_argument("--margin", type=share, default=0.02, metavar="SHARE", help="a change that matters (2%%)")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="seed of the random choices (0)")


def run(options: argparse.Namespace) -> None:
    from reports.verdicts import selftest

    print(selftest.report(options.run, options.pairs, options.margin, options.seed))
