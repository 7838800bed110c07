"""Say what changed from one run folder to another on the same machine, by how much and how surely.

Exit code 0: nothing is shown to be worse by more than the margin; 1: something is; 3: something is missing or not
comparable; 4: something is inconclusive, and --fail-inconclusive was given. If the launches of the two runs took turns,
the chance that any of the verdicts is wrong is at most --level.

With --over seed, launches that differ in their seed alone are one trial's: accuracies are compared in points, in pairs
of one seed, each the mean of its launches; a seed that one run lacks is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from pathlib import Path

from bench.errors import UsageError
from reports import forms
from reports.arguments import points, portion, share


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "base", type=Path, metavar="BASE", help="the run to compare with: its folder, or pytest-benchmark's JSON"
    )
    parser.add_argument("head", type=Path, metavar="HEAD", help="the run that is judged, likewise")
    parser.add_argument("--margin", type=share, default=0.02, metavar="SHARE", help="a change that matters (2%%)")
    parser.add_argument("--level", type=share, default=0.05, metavar="SHARE", help="chance of a false alarm (5%%)")
    parser.add_argument(
        "--look", type=portion, default=1.0, metavar="SHARE", help="of the launches planned, that this look sees"
    )
    parser.add_argument(
        "--looked", type=portion, default=0.0, metavar="SHARE", help="what the look before saw; both fix the level"
    )
    parser.add_argument("--over", choices=["seed"], help="what launches of one trial may differ in, beside repeat")
    parser.add_argument(
        "--accuracy-margin", type=points, metavar="POINTS", help="a loss of accuracy over seeds that matters (0.5)"
    )
    parser.add_argument("--fail-inconclusive", action="store_true", help="exit code 4 if something is inconclusive")
    forms.arguments(parser)


def run(options: argparse.Namespace) -> int:
    from reports.verdicts import compare, over_seeds, report, significance

    if options.looked >= options.look:
        raise UsageError(f"--looked is {options.looked:g}, but --look is {options.look:g}; a later look sees more")
    if options.accuracy_margin is not None and not options.over:
        raise UsageError(
            f"--accuracy-margin {options.accuracy_margin:g} is for accuracies over seeds; give --over seed"
        )
    level = significance.spent(options.look, options.level) - significance.spent(options.looked, options.level)
    points = (options.accuracy_margin or over_seeds.MARGIN) if options.over else None
    found = compare.compare_runs(options.base, options.head, options.margin, level, options.fail_inconclusive, points)
    if (options.look, options.looked) != (1.0, 0.0):
        found = dataclasses.replace(found, overall=options.level)
    forms.write(options, found)
    with contextlib.suppress(SystemExit):  # how rich ends if its reader, such as `head`, closes the pipe
        report.show(found)
    return found.code
