"""Compare the counts of a run with a baseline.

The run is one of studies/exact.toml, and all counts must be equal.

Counted are the operations of a training step by kind, FLOPs, casts, waits, all-reduces and their bytes, and parameters;
for pytest-benchmark's files, what the fixture benchmark_step counted.
Exit code 0: all counts are equal; 1: some are not; 3: there is no baseline for this version of torch; 2: the request
cannot be met; 70: an error that nobody foresaw, whose traceback is in the file that is named. At 1 and 3 the run's
counts are written beside the baseline, and the command that accepts them is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from reports import forms
from reports.arguments import run_folder

GROUP = "Did something change"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tier", choices=["exact"], help="exact: counts; timings are for python -m launch gate")
    parser.add_argument(
        "run", type=run_folder, metavar="RUN", help="the --out folder of a run, or of files of pytest-benchmark"
    )
    parser.add_argument(
        "baseline",
        type=Path,
        nargs="?",
        default=Path("studies/exact.csv"),
        metavar="BASELINE.csv",
        help="the counts to compare with (default: %(default)s)",
    )
    forms.arguments(parser)


def run(options: argparse.Namespace) -> int:
    from reports.verdicts import exact

    found = exact.gate(options.run, options.baseline)
    forms.write(options, found)
    exact.show(found, options.baseline)
    return found.code
