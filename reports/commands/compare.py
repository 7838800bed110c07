"""Say what changed from one run folder to another on the same machine, by how much and how surely.

Exit code 0: nothing got worse by more than the margin as far as can be told; 1: something did; 3: something is missing
or not comparable; 4: of something nothing could be told and --fail-inconclusive was given. Of runs launched in turn,
all that it says together is wrong by chance no more often than --level.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from reports import forms
from reports.arguments import share


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "base", type=Path, metavar="BASE", help="the run to compare with: its folder, or pytest-benchmark's JSON"
    )
    parser.add_argument("head", type=Path, metavar="HEAD", help="the run that is judged, likewise")
    parser.add_argument("--margin", type=share, default=0.02, metavar="SHARE", help="a change that matters (2%%)")
    parser.add_argument("--level", type=share, default=0.05, metavar="SHARE", help="false alarms to live with (5%%)")
    parser.add_argument("--fail-inconclusive", action="store_true", help="exit code 4 where nothing could be told")
    forms.arguments(parser)


def run(options: argparse.Namespace) -> int:
    from reports.verdicts import compare, report

    found = compare.compare_runs(options.base, options.head, options.margin, options.level, options.fail_inconclusive)
    forms.write(options, found)
    with contextlib.suppress(SystemExit):  # rich's way to end where `| head` has seen enough
        report.show(found)
    return found.code
