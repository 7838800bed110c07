"""Time two commits against each other, in turns, on this machine.

Each commit has a worktree and processes of its own, and runs the same trials. Both launches of a pair are there at once
and take turns: one trains a block of steps while the other waits, in an order drawn by chance. The change of a pair is
taken from neighbouring blocks. `python -m reports compare` judges the pairs at looks fixed beforehand: after a quarter
of the pairs, after half, and after all or when the time is up. The gate ends at the first look that decides. The chance
of a false alarm, that is of calling worse what is not, is at most 1% over all looks and metrics.

If a commit cannot take turns, because it is older than that, or both do not fit on the device, launches run one after
the other, which tells less.

Unless options say how long a launch is (--epochs, --limit-windows, --limit-train, --preset), it has 100 steps: many
short launches tell more than few long ones.

`gate BASE HEAD --pytest PATH...` is about two commits of your own project: the repository of the current folder. Its
tests that use the fixture benchmark_step (bench.pytest_plugins.step) run in worktrees of both commits, each launch in a
pytest of its own. Their rounds take turns: as many as fill about two seconds, at least as many as the test asks for.
The options can stand in its pyproject.toml, in the table [tool.resbench.gate], with pytest = [PATH, ...]; then two
commits are all that is needed.

Exit code 0: nothing is worse as far as can be told; 1: the second commit is slower, larger or less accurate by more
than the margin; 2: the request cannot be met; 3: they cannot be compared; 4: nothing can be told, and
--fail-inconclusive was given; 70: an error that nobody foresaw, whose traceback is in the file that is named; 130:
interrupted.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.arguments import Parser
from bench.machine import repository
from bench.machine.environment import CHECKOUT
from bench.terminal import say
from launch.gate import measure
from launch.gate import request as requests
from launch.gate.commits import compare, compare_commits
from launch.gate.out_folder import with_free_folder
from launch.gate.pytest_commits import compare_projects
from launch.gate.request import GateRequest
from launch.gate.worktrees import require_checkout

GROUP = "Did something change"
EXAMPLES = ("HEAD~1 HEAD resnet20_accumulation --arm 16x8 --data synthetic",)
REPOSITORY = CHECKOUT


def arguments(parser: Parser) -> None:
    requests.arguments(parser, "gate")


def read(words: Sequence[str]) -> GateRequest:
    """The request. Behind --pytest stand words that are pytest's."""
    return requests.read(words)


def run(request: GateRequest) -> int:
    """Run the pairs and return the exit code of the verdict."""
    # With --help, compare still checks the options before it: a wrong one is refused before minutes of trials.
    if compare(request, "--help", stdout=subprocess.DEVNULL):
        return 2  # it has printed the error
    folder = Path.cwd()
    if request.pytest:
        checkout = repository.top_level(folder)
    else:
        require_checkout(checkout := REPOSITORY, "gate")
    commits = [repository.resolve(checkout, ref) for ref in request.refs]
    if not repository.is_clean(checkout, untracked=False):
        say("uncommitted changes are in neither commit, and not measured")
    if commits[0] == commits[1]:
        say(f"both are commit {commits[0][:12]}: this measures the machine's noise")
    if request.pytest:
        code = compare_projects(request, folder, checkout, commits)
    else:
        code = compare_commits(with_free_folder(request), checkout, commits)
    if code == measure.INCONCLUSIVE:
        fails = "inconclusive fails, since --fail-inconclusive was given"
        say(fails if request.strict else "inconclusive passes; with --fail-inconclusive it would fail")
    return 0 if code == measure.INCONCLUSIVE and not request.strict else code
