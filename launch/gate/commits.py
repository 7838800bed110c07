"""Two commits of this checkout against each other: worktrees, trials, and the verdict of reports compare."""

from __future__ import annotations

import dataclasses
import functools
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.called import module_command
from bench.errors import INTERRUPTED, UNFORESEEN, Ended
from bench.machine.environment import CHECKOUT
from bench.terminal import say
from launch.gate import measure
from launch.gate.looks import SHARES, Looks
from launch.gate.request import FORMS, GateRequest
from launch.gate.sides import Side
from launch.gate.worktrees import takes_turns, worktrees

# Wrong lines over all looks: 2%, of which half call worse what is not, as p-values count both directions
# (reports.verdicts.significance). That is less than compare's default of 5%, because a false alarm blocks a merge.
LEVEL = "0.02"
NAMES = ("base", "head")
# The exit codes that are verdicts.
GOOD, BAD, NOT_COMPARABLE = 0, 1, 3
JUDGED = (GOOD, BAD, NOT_COMPARABLE, measure.INCONCLUSIVE)
# A look at the pairs so far: the request, and as in a Judge of measure -> the exit code.
Look = Callable[[GateRequest, float, float, bool], int]


def compare_commits(request: GateRequest, repository: Path, commits: Sequence[str], look: Look | None = None) -> int:
    """Run pairs of launches of both commits, and return the exit code of the verdict on them.

    `look` gives the verdict, None: that of `verdict`.
    """
    with worktrees(repository, commits) as trees:
        sides = [side_of(request, *parts) for parts in zip(NAMES, commits, trees, strict=True)]
        in_turns = all(map(takes_turns, trees))
        if not in_turns:
            say("a commit is older than taking turns: launch by launch, which tells less")
        looks = Looks(request.pairs, request.budget_s, (1.0,) if request.all_pairs else SHARES)
        return measure.until_decided(sides, looks, in_turns, functools.partial(look or verdict, request))


def side_of(request: GateRequest, name: str, commit: str, tree: Path) -> Side:
    """One side, which runs the request's trials."""
    folder = request.out / name

    def command(number: int) -> list[str]:
        how = ["--fail-fast", "--out", str(folder), "--repeat", str(number)]
        how += ["--seed", str(number)] if request.seeds else []
        return [sys.executable, "-m", "launch", "run", *request.words, *how]

    return Side(name, commit, tree, folder, command, {})


def verdict(request: GateRequest, share: float, before: float, last: bool) -> int:
    """The exit code of `python -m reports compare` on the pairs so far. Its report is printed, and written to the files
    of FORMS, once: if no other one follows."""
    words = ["--look", str(share), "--looked", str(before), *(str(request.out / name) for name in NAMES)]
    if not last:
        unseen = dataclasses.replace(request, judged=without_forms(request.judged))
        if compare(unseen, *words, stdout=subprocess.DEVNULL) == measure.INCONCLUSIVE:
            return measure.INCONCLUSIVE
    return compare(request, *words)


def without_forms(judged: Sequence[str]) -> list[str]:
    """Options of compare, each with its value, without the files that it writes its verdict to."""
    pairs = zip(judged[::2], judged[1::2], strict=True)
    return [word for option, value in pairs if option not in FORMS for word in (option, value)]


def compare(request: GateRequest, *words: str, stdout: int | None = None) -> int:
    """Run `python -m reports compare` with these words and return its exit code.

    Where it gives neither a verdict nor UsageError's 2, this command ends as well: that one has said why.
    """
    how = ["--level", LEVEL, "--fail-inconclusive", *request.judged]
    command = module_command("reports", "compare", *how, *words)
    code = subprocess.run(command, cwd=CHECKOUT, stdout=stdout, check=False).returncode
    if code < 0:
        say(f"error: reports compare was killed by {signal.Signals(-code).name}; if not by you, see dmesg")
    if code not in (*JUDGED, 2):
        raise Ended(code if code == INTERRUPTED else UNFORESEEN)
    return code
