"""What of a bisect's commits is worse by measurement: each is held against the good commit, in turns."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.machine import repository as git_repository
from bench.terminal import say
from launch.bisect.counts import Counted
from launch.bisect.decisions import Decision, Log
from launch.gate import measure
from launch.gate.commits import BAD, GOOD, JUDGED, NAMES, NOT_COMPARABLE, Look, compare, compare_commits
from launch.gate.request import GateRequest

JSON = "verdict.json"
WORDS = {GOOD: "good", BAD: "bad"}
# Unit of a change -> how many of it are a share of 1.
PER_SHARE = {"share": 1, "points": 100}

# One metric of one trial, as `reports compare --json` writes it.
Comparison = dict[str, Any]


@dataclass(frozen=True)
class Comparer:
    """Compares two commits, each two once: what the log has is not measured again."""

    request: GateRequest
    repository: Path
    log: Log

    def compare(self, base: str, head: str, look: Look | None) -> list[Comparison]:
        """All comparisons of two commits. `look`: see compare_commits."""
        name = f"{base[:12]}-{head[:12]}"
        if name not in self.log.comparisons:
            folder = self.request.out / name
            if folder.exists():  # of an interrupted comparison
                shutil.rmtree(folder)
            judged = [*self.request.judged, "--json", str(folder / JSON)]
            request = dataclasses.replace(self.request, out=folder, judged=judged)
            if compare_commits(request, self.repository, (base, head), look) not in JUDGED:
                raise UsageError(f"the launches in {folder} cannot be judged; see above")
            self.log.comparisons[name] = read(folder)
            self.log.write()
        found: list[Comparison] = self.log.comparisons[name]
        return found


def read(folder: Path) -> list[Comparison]:
    """The comparisons of the last look at the launches in this folder."""
    found: list[Comparison] = json.loads((folder / JSON).read_text(encoding="utf-8"))["comparisons"]
    return found


def is_measured(each: Comparison) -> bool:
    """Whether its change is known: not if launches failed, and a bound may be too large for JSON."""
    return each["interval"] is not None and None not in (each["change"], *each["interval"])


def regressed(found: list[Comparison]) -> list[Comparison]:
    """What got worse by a measured change."""
    return [each for each in found if each["verdict"] == "regressed" and is_measured(each)]


def worst(found: list[Comparison]) -> Comparison | None:
    """Of what got worse, the largest change; None: nothing did."""
    return max(regressed(found), key=lambda each: abs(each["change"]) / PER_SHARE[each["change_unit"]], default=None)


def same(found: list[Comparison], wanted: Comparison) -> Comparison | None:
    """What is found of the same metric of the same trial; None: it has not been measured."""
    keys = ("trial", "metric")
    each = next((each for each in found if all(each[key] == wanted[key] for key in keys)), None)
    return each if each and is_measured(each) else None


def nearer(found: list[Comparison], worse: Comparison) -> int:
    """Whether a commit is GOOD or BAD: its change is surely below or above half of that between the ends.

    The 95% interval has to lie on one side of the half, else this is INCONCLUSIVE. A commit that has all of the change
    or none of it is far from the half, so that the interval is on the wrong side much more rarely than in 2.5%.
    """
    each = same(found, worse)
    if each is None:
        return NOT_COMPARABLE
    sign = 1 if worse["change"] > 0 else -1
    low, high = sorted(sign * bound for bound in each["interval"])
    half = sign * worse["change"] / 2
    return GOOD if high < half else BAD if low > half else measure.INCONCLUSIVE


def look_for(worse: Comparison, request: GateRequest, share: float, before: float, last: bool) -> int:
    """A look that decides as `nearer` does, at each look alike."""
    folders = [str(request.out / name) for name in NAMES]
    if compare(request, *folders, stdout=subprocess.DEVNULL) not in JUDGED:
        raise UsageError(f"the launches in {request.out} cannot be judged; see above")
    return nearer(read(request.out), worse)


def text(each: Comparison) -> str:
    """A change in words: step_time_p50_s +5.10% (95% interval +4.90% .. +5.30%)."""
    low, high = (size(each, bound) for bound in each["interval"])
    return f"{each['metric']} {size(each, each['change'])} (95% interval {low} .. {high})"


def size(each: Comparison, change: float) -> str:
    """A change of this metric with its unit."""
    return f"{change:+.2%}" if each["change_unit"] == "share" else f"{change:+.2f} {each['change_unit']}"


@dataclass(frozen=True)
class ByTime:
    """A commit is good or bad by the metric that got worst between the ends.

    `counted`: the counts of a commit, which tell whether it runs.
    """

    comparer: Comparer
    good: str
    ends: list[Comparison]
    worse: Comparison
    counted: Callable[[str], Counted]

    def decide(self, commit: str, counted: Counted) -> Decision:
        """The decision on a commit that runs."""
        found = self.comparer.compare(self.good, commit, functools.partial(look_for, self.worse))
        failed = [each["why"] for each in found if each["trial"] == self.worse["trial"] and not each["metric"]]
        each = same(found, self.worse)
        if failed or each is None:
            return Decision(commit, "skip", (failed or [f"{self.worse['metric']} was not measured"])[0])
        half = f"half of the change between the ends, {size(self.worse, self.worse['change'] / 2)}"
        word = WORDS.get(nearer(found, self.worse), "skip")
        where = {"good": "below", "bad": "above", "skip": "not surely on one side of"}[word]
        return Decision(commit, word, f"{text(each)}, {where} {half}")

    def describe(self, commit: str, counted: Counted) -> tuple[bool, list[str]]:
        """(whether this commit alone makes the change, by a comparison with its parent; the changes in lines)."""
        parent, place = git_repository.resolve(self.comparer.repository, f"{commit}^"), "the commit before it"
        if parent != self.good and (why := self.counted(parent).why):
            say(f"its parent {parent[:12]} does not run ({why}): it is held against the good commit")
            parent, place = self.good, "the good one"
        found = self.comparer.compare(parent, commit, functools.partial(look_for, self.worse))
        lines = [f"against {parent[:12]}, {place}; in brackets the change between the ends:"]
        for end in regressed(self.ends):
            each = same(found, end)
            changed = text(each) if each else f"{end['metric']} not measured"
            lines.append(f"{end['trial']}: {changed} [{size(end, end['change'])}]")
        # Against the good commit it has been found bad already, or is the bad end.
        return parent == self.good or nearer(found, self.worse) == BAD, lines
