"""Say what changed from one run to another, and how surely.

Both must have run on one machine.

Exit code 0: nothing is shown to be worse by more than the margin; 1: something is; 3: something is missing or not
comparable; 4: something is inconclusive, and --fail-inconclusive was given; 2: the request cannot be met; 70: an error
that nobody foresaw, whose traceback is in the file that is named. If the launches of the two runs took turns, the
chance that any of the verdicts is wrong is at most --level.

With --over seed, launches that differ in their seed alone are one trial's: accuracies are compared in points, in pairs
of one seed, each the mean of its launches; a seed that one run lacks is left out.

compare RUN --arms A,B judges one arm of a run against another, with all its seeds: time, memory, energy, accuracy and,
with a target, the time to it. --setting precision=bf16,no does so for two values of a setting.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from bench.arguments import perhaps
from bench.errors import UsageError
from reports import forms
from reports.arguments import points, portion, share, target_argument, wide_argument

GROUP = "Did something change"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "base", type=Path, metavar="BASE", help="the run to compare with: its folder, or pytest-benchmark's JSON"
    )
    parser.add_argument("head", type=Path, nargs="?", metavar="HEAD", help="the run that is judged, likewise")
    within = parser.add_argument_group("within one run")
    within.add_argument("--arms", metavar="A,B", help="of one run, BASE: judge arm A against arm B")
    within.add_argument("--setting", metavar="NAME=A,B", help="likewise, trials with A against those with B")
    target_argument(within)
    verdict = parser.add_argument_group("the verdict")
    verdict.add_argument(
        "--margin", type=share, default=0.02, metavar="SHARE", help="a change that matters (default: 2%%)"
    )
    verdict.add_argument(
        "--level", type=share, default=0.05, metavar="SHARE", help="chance of a false alarm (default: 5%%)"
    )
    verdict.add_argument(
        "--look", type=portion, default=1.0, metavar="SHARE", help="of the launches planned, that this look sees"
    )
    verdict.add_argument(
        "--looked", type=portion, default=0.0, metavar="SHARE", help="what the look before saw; both fix the level"
    )
    verdict.add_argument("--over", choices=["seed"], help="what launches of one trial may differ in, beside repeat")
    verdict.add_argument(
        "--accuracy-margin",
        type=points,
        metavar="POINTS",
        help="a loss of accuracy over seeds that matters (default: 0.5)",
    )
    verdict.add_argument("--fail-inconclusive", action="store_true", help="exit code 4 if something is inconclusive")
    wide_argument(parser)
    forms.arguments(parser)


def run(options: argparse.Namespace) -> int:
    from reports.verdicts import compare, over_seeds, report, significance

    if options.looked >= options.look:
        raise UsageError(f"--looked is {options.looked:g}, but --look is {options.look:g}; a later look sees more")
    within = asked_within(options)
    if options.accuracy_margin is not None and not options.over and not within:
        raise UsageError(
            f"--accuracy-margin {options.accuracy_margin:g} is for accuracies over seeds; give --over seed"
        )
    level = significance.spent(options.look, options.level) - significance.spent(options.looked, options.level)
    points = options.accuracy_margin or over_seeds.MARGIN
    if within:
        from reports.verdicts import arms

        setting, values = within
        found = arms.compare_within(
            options.base,
            setting,
            values,
            options.margin,
            level,
            options.fail_inconclusive,
            points,
            options.target_accuracy,
        )
    else:
        found = compare.compare_runs(
            options.base,
            options.head,
            options.margin,
            level,
            options.fail_inconclusive,
            points if options.over else None,
        )
    if (options.look, options.looked) != (1.0, 0.0):
        found = dataclasses.replace(found, overall=options.level)
    forms.write(options, found)
    report.show(found, options.wide)
    return found.code


def asked_within(options: argparse.Namespace) -> tuple[str, list[str]] | None:
    """(the setting, its two values) if one run is asked about; None: two runs are. Raises UsageError if neither is."""
    asked = [name for name in ("arms", "setting") if getattr(options, name) is not None]
    if not asked:
        if options.head is None:
            raise UsageError("compare needs two runs, BASE and HEAD; or RUN --arms A,B for two arms of one run")
        if options.target_accuracy is not None:
            raise UsageError("--target-accuracy is for two arms of one run; give --arms A,B, or leave it out")
        return None
    if len(asked) > 1 or options.head is not None:
        raise UsageError(f"--{asked[-1]} compares within one run; give one run, and one of --arms and --setting")
    if options.over:
        raise UsageError(f"--over seed goes without saying with --{asked[0]}; leave it out")
    name, _, listed = ("arm", "", options.arms) if asked == ["arms"] else options.setting.partition("=")
    values = [value for value in listed.split(",") if value]
    if len(set(values)) != 2 or len(values) != 2:
        form = "16x16,256x1" if name == "arm" else "precision=bf16,no"
        raise UsageError(f"--{asked[0]} is {getattr(options, asked[0])!r}; give two different ones, such as {form}")
    return checked_setting(name.replace("-", "_")), values


def checked_setting(name: str) -> str:
    """The setting. Raises UsageError if two of its values cannot be compared."""
    from reports.verdicts.matching import SETTINGS

    if name == "seed" or name not in SETTINGS:
        possible = ", ".join(sorted(set(SETTINGS) - {"seed"}))
        near = perhaps(name, set(SETTINGS) - {"seed"})
        raise UsageError(f"--setting cannot compare {name!r}{near}; choose from: {possible}")
    return name
