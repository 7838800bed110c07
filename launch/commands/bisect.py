"""Find the commit between a good and a bad one that made trials slower, larger or less accurate, or changed a count.

usage: python -m launch bisect GOOD BAD EXPERIMENT... [--by-time] [--pairs N] [--budget TIME] [--margin SHARE]
                  [--seeds N [--accuracy-margin POINTS]] [--out FOLDER] [options as of run]

--by-time  time the commits even if counts differ between GOOD and BAD
--pairs    most launches of each commit in one comparison (32)
--budget   the time that one comparison may take, such as 5min
--margin   a change between GOOD and BAD that matters (1%)
--seeds    compare accuracies over so many seeds, as gate does
--out      where the runs and the log of decisions are left (runs/bisect); the same words go on from there

GOOD has to be in the history of BAD. `git bisect` chooses the commits to be tried, in a worktree of its own. First both
ends run a few steps of each trial, twice. If exact counts differ between them (operations of each kind, casts, waits,
all-reduces, bytes, parameters), one such run of each commit decides: it is good if all these counts are GOOD's, else
bad. So the commit that is found is the first one to change any of them.

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

from bench.errors import UsageError
from bench.machine import repository
from bench.machine.environment import CHECKOUT
from bench.terminal import say
from launch.bisect import search
from launch.gate.commits import compare
from launch.gate.request import FORMS, read
from launch.gate.worktrees import require_checkout
from launch.sweep.option_words import dashed

REPOSITORY = CHECKOUT
BY_TIME = "--by-time"


def run(words: Sequence[str]) -> int:
    """Find the commit and return the exit code."""
    dashes = [dashed(word) for word in words]
    request = read([word for word in dashes if word != BY_TIME], "bisect")
    if request.strict or {*request.judged} & {*FORMS}:
        raise UsageError(f"bisect gives no verdict: leave out {', '.join(FORMS)} and --fail-inconclusive")
    # With --help, compare still checks the options before it: a wrong one is refused before minutes of trials.
    if compare(request, "--help", stdout=subprocess.DEVNULL):
        return 2  # it has printed the error
    require_checkout(REPOSITORY, "bisect")
    good, bad = (repository.resolve(REPOSITORY, ref) for ref in request.refs)
    if not repository.is_clean(REPOSITORY, untracked=False):
        say("uncommitted changes are in no commit, and not measured")
    return search.find(request, REPOSITORY, good, bad, BY_TIME in dashes)
