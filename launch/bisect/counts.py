"""Exact counts of a commit's trials: what they are, which differ between two commits, and what that says of a third.

Counts do not vary from launch to launch: where they differ, one run of a few steps decides about a commit.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.record.columns import COUNTS
from launch.bisect.decisions import Decision
from launch.gate import sides
from launch.gate.sides import Side
from launch.gate.worktrees import worktrees
from launch.sweep import option_words

KINDS = "operation_kinds"
# Counted in the last warm-up step but one; the last of these steps is an epoch's last one, which may be short.
SHORT = {"--epochs": "1", "--limit-windows": "6", "--warmup-windows": "4"}
MACHINE = ("host", "device_name", "torch")

# (trial, count) -> its value, as the text of its cell.
Counts = dict[tuple[str, str], str]
# (trial, count) -> its values in two commits.
Differences = dict[tuple[str, str], tuple[str, str]]


@dataclass(frozen=True)
class Counted:
    """The counts of one run. `why`: why the trials did not run, "": they did; `machine`: what the counts hold for."""

    why: str = ""
    counts: Counts = field(default_factory=dict)
    machine: tuple[str, ...] = ()


def run(repository: Path, commit: str, folder: Path, words: Sequence[str], times: int) -> Counted:
    """Run a commit's trials `times` times, into this folder, which is replaced.

    `words` are for `launch run`, which may be longer trials.
    """
    if folder.exists():
        shutil.rmtree(folder)

    def command(number: int) -> list[str]:
        how = ["--fail-fast", "--out", str(folder), "--repeat", str(number)]
        return [sys.executable, "-m", "launch", "run", *shortened(words), *how]

    with worktrees(repository, [commit]) as trees:
        side = Side(commit[:12], commit, trees[0], folder, command, {})
        for number in range(times):
            codes = sides.one_by_one([side], number)
            if why := failure(side, codes[0]):
                return Counted(why)
    return of_rows(side.rows(), option_words.axes(words))


def shortened(words: Sequence[str]) -> list[str]:
    """The words of trials that have just the steps that are counted."""
    replaced = {option_words.field_of(option) for option in SHORT}
    groups = [group for group in option_words.grouped(words) if option_words.field_of(group[0]) not in replaced]
    kept = [word for option, values in groups for word in ([option, *values] if option else values)]
    return [*kept, *(word for pair in SHORT.items() for word in pair)]


def failure(side: Side, code: int) -> str:
    """Why the side's last run does not count; "": it does."""
    rows = side.rows()
    for row in rows:
        if row["status"] != "ok":
            return f"{row['experiment']} {row['arm']} ended as {row['status']}: {row['error']}"
    if code or not rows:
        return f"launch run ended with exit code {code} and {len(rows) or 'no'} rows"
    ran = rows[-1]["commit"] or "an unknown commit"
    return "" if side.commit.startswith(ran) else f"what ran is {ran}"


def of_rows(rows: Sequence[Mapping[str, str]], axes: Sequence[str]) -> Counted:
    """The counts of trials.csv's rows, each trial with its name; "" where its repeats have unlike ones."""
    by_repeat: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        by_repeat.setdefault(row["repeat"], []).append(row)
    repeats = [of_repeat(each, axes) for each in by_repeat.values()]
    found: Counts = {}
    for key in (key for each in repeats for key in each):
        values = {value(each, key) for each in repeats}
        found[key] = values.pop() if len(values) == 1 else ""
    return Counted("", found, tuple(rows[0][name] for name in MACHINE))


def of_repeat(rows: Sequence[Mapping[str, str]], axes: Sequence[str]) -> Counts:
    """The counts of rows of which each is another trial."""
    found: Counts = {}
    names: list[str] = []
    for row in rows:
        title = " ".join([f"{row['experiment']} {row['arm']}", *(f"{axis}={row[axis]}" for axis in axes)])
        # Trials that differ in what is no axis of settings, such as a memory limit, come in the order of the words.
        name = title if title not in names else f"{title} ({names.count(title) + 1})"
        names.append(title)
        found |= {(name, count): row[count] for count in COUNTS if row[count]}
        for part in filter(None, row[KINDS].split(", ")):
            kind, _, number = part.rpartition(" ")
            found[name, f"{KINDS} {kind}"] = number
    return found


def differing(good: Counts, bad: Counts) -> Differences:
    """The counts that differ, of those that both have: one that an older version did not count is no difference."""
    order = sorted(good.keys() | bad.keys(), key=lambda key: (key[0], key[1].startswith(KINDS), key[1]))
    values = {key: (value(good, key), value(bad, key)) for key in order}
    return {key: (was, now) for key, (was, now) in values.items() if was and now and was != now}


def value(found: Counts, key: tuple[str, str]) -> str:
    """A count; "": it was not counted. A kind of operation that did not occur was counted: 0 times."""
    trial, count = key
    kinds = count.startswith(KINDS) and any(name == trial and other.startswith(KINDS) for name, other in found)
    return found.get(key, "0" if kinds else "")


@dataclass(frozen=True)
class ByCounts:
    """A commit is good if the counts that differ between the ends are the good end's, and bad if one is not.

    So the first bad commit is the first one that changed any of them, whatever others change later.
    """

    differences: Differences

    def decide(self, commit: str, counted: Counted) -> Decision:
        """The decision on a commit with these counts."""
        now = {key: value(counted.counts, key) for key in self.differences}
        if missing := [key for key, found in now.items() if not found]:
            return Decision(commit, "skip", f"{missing[0][0]} has no {missing[0][1]}")
        moved = [key for key, (good, _) in self.differences.items() if now[key] != good]
        if not moved:
            return Decision(commit, "good", f"the {len(now)} counts are those of the good commit")
        why = f"{len(moved)} of {len(now)} counts are not those of the good commit"
        other = [key for key in moved if now[key] != self.differences[key][1]]
        neither = f", {len(other)} of them not those of the bad one either" if other else ""
        return Decision(commit, "bad", why + neither)

    def describe(self, commit: str, counted: Counted) -> tuple[bool, list[str]]:
        """(True: the counts prove it, what the first bad commit, with these counts, changed)."""
        now = {key: value(counted.counts, key) for key in self.differences}
        lines = [
            f"{trial}: {count} {good} -> {now[trial, count]}"
            for (trial, count), (good, _) in self.differences.items()
            if now[trial, count] != good
        ]
        later = sum(now[key] != bad for key, (_, bad) in self.differences.items())
        more = f"{later} of the {len(now)} counts that differ between the ends change later; to find where, give "
        return True, [*lines, *([f"{more}{commit[:12]} as the good commit"] if later else [])]
