"""Hold the counts of a run of studies/exact.toml against a baseline, to the last one.

Counted are operations by kind, FLOPs, casts, waits, all-reduces and their bytes, and parameters, in a training step;
of pytest-benchmark's files, what the fixture benchmark_step counted.
Exit code 0: all are equal; 1: some are not; 3: there is no baseline for this version of torch. Without 0 the run's own
counts are written beside the baseline, and the command that accepts them is printed.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from reports import forms


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tier", choices=["exact"], help="exact: counts; timings are for python -m launch gate")
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="the --out folder of a run, or of files of pytest-benchmark"
    )
    parser.add_argument("baseline", type=Path, nargs="?", default=Path("studies/exact.csv"), metavar="BASELINE.csv")
    forms.arguments(parser)


def run(options: argparse.Namespace) -> int:
    from reports.verdicts import exact

    found = exact.gate(options.run, options.baseline)
    forms.write(options, found)
    with contextlib.suppress(SystemExit):  # rich's way to end where `| head` has seen enough
        exact.show(found, options.baseline)
    return found.code
