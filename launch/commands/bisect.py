"""Find the commit that made trials slower, larger or less accurate.

Or the one that changed a count. GOOD has to be in the history of BAD. `git bisect` chooses the commits to be tried, in
a worktree of its own. First both ends run a few steps of each trial, twice. If exact counts differ between them
(operations of each kind, casts, waits, all-reduces, bytes, parameters), one such run of each commit decides: it is good
if all these counts are GOOD's, else bad. So the commit that is found is the first one to change any of them.

If no count differs, the ends are timed as by `gate`. The metric of a trial that got worst by the largest share decides:
each commit is held against GOOD, and is good or bad if the 95% interval of its change lies below or above half of the
change between the ends. The commit that is found is then held against the commit before it.

A commit that does not run, fails or is on neither side of the half is skipped. Ctrl-C keeps what has been decided.

Exit code 0: the commit was found; 2: the request cannot be met, such as by an end that does not run; 3: it cannot be
told, because nothing differs, skipped commits are in the way, or no single commit made the change; 70: an error that
nobody foresaw, whose traceback is in the file that is named; 130: interrupted.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from bench.arguments import Parser
from bench.errors import UsageError
from bench.machine import repository
from bench.machine.environment import CHECKOUT
from bench.terminal import say
from launch.bisect import search
from launch.gate import request as requests
from launch.gate.commits import compare
from launch.gate.request import FORMS, GateRequest
from launch.gate.worktrees import require_checkout

GROUP = "Did something change"
EXAMPLES = ("HEAD~8 HEAD resnet20_accumulation --arm 16x1",)
REPOSITORY = CHECKOUT


def arguments(parser: Parser) -> None:
    requests.arguments(parser, "bisect")


def read(words: Sequence[str]) -> GateRequest:
    """The request."""
    return requests.read(words, "bisect")


def run(request: GateRequest) -> int:
    """Find the commit and return the exit code."""
    if request.strict or {*request.judged} & {*FORMS}:
        raise UsageError(f"bisect gives no verdict: leave out {', '.join(FORMS)} and --fail-inconclusive")
    # With --help, compare still checks the options before it: a wrong one is refused before minutes of trials.
    if compare(request, "--help", stdout=subprocess.DEVNULL):
        return 2  # it has printed the error
    require_checkout(REPOSITORY, "bisect")
    good, bad = (repository.resolve(REPOSITORY, ref) for ref in request.refs)
    if not repository.is_clean(REPOSITORY, untracked=False):
        say("uncommitted changes are in no commit, and not measured")
    return search.find(request, REPOSITORY, good, bad, request.by_time)
