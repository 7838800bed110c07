"""Which commit did it? git chooses the commits, their counts or their times decide, and a log keeps the decisions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from bench.record.run_folder import RunFolder
from bench.terminal import say
from launch.bisect import counts, times
from launch.bisect.counts import ByCounts, Counted
from launch.bisect.decisions import Decision, Log, open_log
from launch.bisect.suspects import Suspects, check_ends, described
from launch.bisect.times import ByTime, Comparer
from launch.gate.request import GateRequest
from launch.gate.worktrees import worktrees
from launch.sweep import option_words

FOUND, UNKNOWN = 0, 3
Judge = ByCounts | ByTime


@dataclass(frozen=True)
class Bisect:
    """One search. `good`, `bad`: hashes of the ends."""

    request: GateRequest
    repository: Path
    good: str
    bad: str
    log: Log

    def counted(self, commit: str) -> Counted:
        """The counts of a commit. A commit that the log knows is not run again; an end is run twice."""
        folder = self.request.out / commit[:12]
        if commit in self.log.decisions and (rows := RunFolder(folder).rows("trials")):
            return counts.of_rows(rows, option_words.axes(self.request.words))
        runs = 2 if commit in (self.good, self.bad) else 1
        return counts.run(self.repository, commit, folder, self.request.words, runs)

    def end(self, word: str, commit: str) -> Counted:
        """The counts of an end. Raises UsageError if it does not run."""
        say(f"{word}: {commit[:12]} {' '.join(described(self.repository, commit))}")
        found = self.counted(commit)
        if found.why:
            raise UsageError(f"the {word} commit {commit[:12]} does not run ({found.why}); give one that does")
        self.log.add(Decision(commit, word, "given"))
        return found

    def try_commit(self, judge: Judge, machine: tuple[str, ...], commit: str) -> Decision:
        """Run a commit and decide about it. Raises UsageError if this is not the machine of the ends."""
        found = self.counted(commit)
        if found.why:
            return Decision(commit, "skip", found.why)
        if found.machine != machine:
            raise UsageError(
                f"the ends ran on {' '.join(machine)}, {commit[:12]} on {' '.join(found.machine)}; "
                "choose another --out to begin anew"
            )
        return judge.decide(commit, found)


def find(request: GateRequest, repository: Path, good: str, bad: str, by_time: bool) -> int:
    """Find the first bad commit and print it; returns the exit code. Raises UsageError if an end does not run."""
    check_ends(repository, good, bad)
    task = {"good commit": good, "bad commit": bad, "words": request.words, "by time": by_time}
    task |= {"pairs": request.pairs, "all pairs": request.all_pairs, "seeds": request.seeds, "judged": request.judged}
    task |= {"budget in s": None if math.isinf(request.budget_s) else request.budget_s}
    with open_log(request.out, task) as log:
        bisect = Bisect(request, repository, good, bad, log)
        ends = bisect.end("good", good), bisect.end("bad", bad)
        judge = judge_of(bisect, *ends, by_time)
        if judge is None:
            return UNKNOWN
        with worktrees(repository, [good]) as (tree,):
            suspects = Suspects(tree, good, bad)
            search(suspects, log, lambda commit: bisect.try_commit(judge, ends[0].machine, commit))
            return report(bisect, judge, suspects)


def judge_of(bisect: Bisect, good: Counted, bad: Counted, by_time: bool) -> Judge | None:
    """What tells good from bad; None: nothing does, and why is printed."""
    if not by_time and (differences := counts.differing(good.counts, bad.counts)):
        say(f"{len(differences)} counts differ between the ends: one short run of each commit decides")
        return ByCounts(differences)
    say("by time, as asked for" if by_time else "no count differs between the ends: they are timed")
    comparer = Comparer(bisect.request, bisect.repository, bisect.log)
    ends = comparer.compare(bisect.good, bisect.bad, None)
    worse = times.worst(ends)
    if worse is None:
        what = f"{bisect.bad[:12]} is worse than {bisect.good[:12]}"
        if any(each["verdict"] == "inconclusive" for each in ends):
            say(f"it cannot be told whether {what}, see above; give more --pairs or longer launches")
        else:
            say(f"there is nothing to find: it is not shown that {what}, see above")
        return None
    say(f"{worse['trial']}: {times.text(worse)}: each commit is held against {bisect.good[:12]}")
    return ByTime(comparer, bisect.good, ends, worse, bisect.counted)


def search(suspects: Suspects, log: Log, try_commit: Callable[[str], Decision]) -> None:
    """Try commits until no untried one is left. Those of which the log has a decision are not tried again."""
    while untried := suspects.untried():
        commit = suspects.next()
        if commit not in log.decisions:
            say(f"{len(untried)} commit(s) left, trying {commit[:12]} {' '.join(described(suspects.tree, commit))}")
            log.add(try_commit(commit))
            say(f"  {log.decisions[commit].word}: {log.decisions[commit].why}")
        suspects.add(commit, log.decisions[commit].word)


def report(bisect: Bisect, judge: Judge, suspects: Suspects) -> int:
    """Print what was found and the decisions that led there; returns the exit code."""

    def titled(commit: str) -> str:
        return "  ".join([commit[:12], *described(bisect.repository, commit)])

    left = suspects.all()
    sure = False
    if len(left) > 1:
        print(f"one of these {len(left)} commits did it; all but {left[0][:12]}, which is bad, were skipped:")
        lines = [titled(commit) for commit in left]
    else:
        sure, lines = judge.describe(suspects.bad, bisect.counted(suspects.bad))
        none = "no commit alone is shown to have done it; where its effect passes half of the change is"
        print(f"{'the first bad commit is' if sure else none} {titled(suspects.bad)}")
    for line in lines:
        print(f"  {line}")
    print(f"the decisions, in {bisect.log.path}:")
    for each in bisect.log.decisions.values():
        print(f"  {each.word:<5} {titled(each.commit)}: {each.why}")
    return FOUND if sure else UNKNOWN
