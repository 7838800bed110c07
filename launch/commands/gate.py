"""Time two commits against each other on this machine, in turns, and say whether the second is worse.

usage: python -m launch gate BASE_REF HEAD_REF EXPERIMENT... [--pairs N] [--budget TIME] [--margin SHARE]
                  [--fail-inconclusive] [--markdown FILE] [--junit FILE] [--json FILE] [--smaller-is-better FILE]
                  [options as of run]

--pairs   most launches of each commit (32)
--budget  the time they may take, such as 5min
--margin  a change that matters (1%)

Each commit has a worktree and processes of its own, and runs the same trials. Both launches of a pair are there at once
and take turns: one trains a block of steps while the other waits, in an order drawn by chance. The change of a pair is
taken from neighbouring blocks. `python -m reports compare` judges the pairs at looks fixed beforehand: after a quarter
of the pairs, after half, and after all or when the time is up. The gate ends at the first look that decides. The chance
of a false alarm, over all looks and metrics, is at most 1%.

If a commit cannot take turns, because it is older than that, or both do not fit on the device, launches run one after
the other, which tells less.

Unless options say how long a launch is (--epochs, --limit-windows, --limit-train, --preset), it has 100 steps: many
short launches tell more than few long ones.

Exit code 0: nothing is worse as far as can be told; 1: the second commit is slower, larger or less accurate by more
than the margin; 3: they cannot be compared; 4: nothing can be told, and --fail-inconclusive was given.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.errors import UsageError
from bench.machine.environment import CHECKOUT
from bench.terminal import say
from launch.gate import measure
from launch.gate.looks import Looks
from launch.gate.request import GateRequest, read
from launch.gate.sides import Side
from launch.gate.worktrees import takes_turns, worktrees
from launch.sweep import commit_pairs

# False alarms over all looks: 1%, not compare's default of 5%, because each blocks a merge.
LEVEL = 0.01
NAMES = ("base", "head")


def run(words: Sequence[str]) -> int:
    """Run the pairs and return the exit code of the verdict."""
    request = read(words)
    # With --help, compare still checks the options before it: a wrong one is refused before minutes of trials.
    if compare(request, LEVEL, "--help", stdout=subprocess.DEVNULL):
        return 2  # it has printed the error
    commits = [commit_pairs.commit(ref) for ref in request.refs]
    if request.out.exists() and (not request.out.is_dir() or any(request.out.iterdir())):
        raise UsageError(f"{request.out} is there already; choose another --out, or remove it")
    if commit_pairs.git("status", "--porcelain", "--untracked-files=no"):
        say("uncommitted changes are in neither commit, and not measured")
    if commits[0] == commits[1]:
        say(f"both are commit {commits[0][:12]}: this measures the machine's noise")
    with worktrees(commits) as trees:
        both = [side_of(request, *parts) for parts in zip(NAMES, commits, trees, strict=True)]
        in_turns = all(map(takes_turns, trees))
        if not in_turns:
            say("a commit is older than taking turns: launch by launch, which tells less")
        looks = Looks(request.pairs, LEVEL, request.budget_s)
        code = measure.until_decided(both, looks, in_turns, functools.partial(verdict, request))
    return 0 if code == measure.INCONCLUSIVE and not request.strict else code


def side_of(request: GateRequest, name: str, commit: str, tree: Path) -> Side:
    """One side, which runs the request's trials."""
    folder = request.out / name

    def command(number: int) -> list[str]:
        how = ["--fail-fast", "--out", str(folder), "--repeat", str(number)]
        return [sys.executable, "-m", "launch", "run", *request.words, *how]

    return Side(name, commit, tree, folder, command, {})


def verdict(request: GateRequest, level: float, last: bool) -> int:
    """The exit code of `python -m reports compare` on the pairs so far. Prints its report if no other one follows."""
    folders = [str(request.out / name) for name in NAMES]
    code = compare(request, level, *folders, stdout=None if last else subprocess.DEVNULL)
    if not last and code != measure.INCONCLUSIVE:
        compare(request, level, *folders)
    return code


def compare(request: GateRequest, level: float, *words: str, stdout: int | None = None) -> int:
    """Run `python -m reports compare` with these words and return its exit code."""
    how = ["--margin", request.margin, "--level", str(level), "--fail-inconclusive", *request.forms]
    command = (
        [sys.executable, "-m", "reports", "compare", *words, *how]
        if "--help" not in words
        else [sys.executable, "-m", "reports", "compare", *how, *words]
    )
    return subprocess.run(command, cwd=CHECKOUT, stdout=stdout, check=False).returncode
