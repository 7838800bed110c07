"""Pair after pair of launches, until a look at them decides."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence

from bench.errors import INTERRUPTED, UsageError
from bench.terminal import say
from bench.variables import new_id
from launch.gate import sides
from launch.gate.looks import Looks
from launch.gate.referee import OTHER_SETTINGS
from launch.gate.sides import Side

INCONCLUSIVE = 4
# The exit code of a look that sees this share of the pairs, the one before that share; and whether it is the last.
Judge = Callable[[float, float, bool], int]


def until_decided(both: Sequence[Side], looks: Looks, takes_turns: bool, judge: Judge) -> int:
    """Run pairs until a look decides; returns the exit code of the verdict on them.

    Raises UsageError if a side cannot run the trials, or another commit than intended was run.
    """
    order: list[Side] = list(both)
    gate = new_id()  # pairs of two gates have equal numbers, and are none
    for number in range(looks.most):
        say(f"pair {number + 1} of at most {looks.most}")
        # One by one, each is as often first as second: a launch's effect on the next (warm caches, heat) cancels out.
        order = order[::-1] if number % 2 else random.sample(both, 2)
        began_s = time.monotonic()
        codes, broken = run_pair(both, order, number, takes_turns, gate)
        if takes_turns and (why := no_turns(both, broken)):
            say(f"{why}: launch by launch, from the start, which tells less")
            for side in both:
                shutil.rmtree(side.folder)
            return until_decided(both, looks, False, judge)
        for side, code in zip(both, codes, strict=True):
            check(both, side, code)
        complete = not broken and not any(codes)
        if broken:
            # The other side has not shown whether it would have ended well.
            say(f"{broken}: one more launch of each, alone, and that is all")
            codes, _ = run_pair(both, order, number + 1, False, gate)
            for side, code in zip(both, codes, strict=True):
                check(both, side, code)
        pairs = number + 1
        if complete and pairs == 1:
            say(looks.after_first(time.monotonic() - began_s))
        if complete and not looks.due(pairs):
            continue
        last = not complete or looks.is_last(pairs)
        code = judge(*looks.look(pairs, last), last)
        if code == INCONCLUSIVE and last and complete:
            say(looks.undecided(pairs))
        if last or code != INCONCLUSIVE:
            return code
        say(f"after {pairs} pairs this is inconclusive; the next look is at more")
    raise AssertionError("the last pair is the last look")


def run_pair(
    both: Sequence[Side], order: Sequence[Side], number: int, takes_turns: bool, gate: str
) -> tuple[list[int], str]:
    """Run one launch of each trial on both sides: (each side's exit code, why they ended before their time).

    `gate` and the number name the round that is recorded of them.
    """
    if takes_turns:
        codes, broken = sides.in_turns(both, number)
    else:
        codes, broken = sides.one_by_one(order, number), ""
        codes = codes if list(order) == list(both) else codes[::-1]
    for side, code in zip(both, codes, strict=True):
        side.finish(number, code, f"{gate}-{number}")
    return codes, broken


def no_turns(both: Sequence[Side], broken: str) -> str:
    """Why the sides, whose pair was `broken`, cannot take turns though each can run alone; "": they can."""
    if broken == OTHER_SETTINGS:
        return broken
    return "the device has no room for both sides at once" if broken and out_of_device_memory(both) else ""


def out_of_device_memory(both: Sequence[Side]) -> bool:
    """Whether the last launch of a side found no room on its device, though it had no limit."""
    ended = [rows[-1] for side in both if (rows := side.rows())]
    return any(
        row["status"] == "oom" and row["device_name"] != "cpu" and not row["memory_limit_bytes"] for row in ended
    )


def check(both: Sequence[Side], side: Side, code: int) -> None:
    """Raises UsageError if the side cannot run the trials, or ran another commit."""
    rows = side.rows()
    if code == 2 or (not rows and code not in (0, INTERRUPTED)):
        if all(row["status"] == "interrupted" for each in both for row in each.rows()):
            for each in both:  # nothing was measured, and the next gate would refuse the folder
                shutil.rmtree(each.folder, ignore_errors=True)
        killed = f" (killed by {signal.Signals(-code).name})" if code < 0 else ""
        raise UsageError(f"{side.name} cannot run this{killed}; see above")
    if rows and not side.commit.startswith(ran := rows[-1]["commit"] or "an unknown commit"):
        raise UsageError(f"{side.name} is {side.commit[:12]}, but what ran is {ran}")
