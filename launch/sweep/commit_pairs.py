"""Two commits run the same trials in turn on this machine, each from a worktree of its own.

A pair is one launch of each commit. Within a pair the order is drawn by chance (base head, or head base) and the next
pair has the opposite order, so that neither commit profits from running first.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.errors import UsageError
from bench.failure.causes import Interrupted
from bench.machine import repository
from bench.machine.environment import CHECKOUT
from bench.record.run_folder import RunFolder
from bench.terminal import say

REPOSITORY = CHECKOUT


@contextlib.contextmanager
def worktrees(commits: Sequence[str]) -> Iterator[list[Path]]:
    """A checkout of each commit, removed when the block ends."""
    with tempfile.TemporaryDirectory(prefix="resbench-gate-") as scratch, contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(repository.worktree(REPOSITORY, each, Path(scratch) / side))
            for side, each in zip(("base", "head"), commits, strict=True)
        ]


def measure(
    trees: Sequence[Path], commits: Sequence[str], sides: Sequence[Path], words: Sequence[str], pairs: range
) -> None:
    """Run all trials of both commits, in pairs of these numbers.

    Raises UsageError if one of them cannot run the trials, or another commit than intended was run.
    """
    order: list[int] = []
    for number in pairs:
        # Each is as often first as second, so that a launch's effect on the next (warm caches, heat) cancels out.
        order = order[::-1] if (number - pairs.start) % 2 else random.choice([[0, 1], [1, 0]])
        for side in order:
            say(f"pair {number + 1} of {pairs.stop}: {sides[side].name}")
            more = ["--out", str(sides[side]), "--repeat", str(number)]
            code = in_tree(trees[side], [sys.executable, "-m", "launch", "run", *words, *more], sides[side])
            rows = RunFolder(sides[side]).rows("trials")
            if code == 2 or not rows:
                if not any(RunFolder(folder).rows("trials") for folder in sides):
                    for folder in sides:  # empty: the next gate would refuse the folder
                        shutil.rmtree(folder, ignore_errors=True)
                raise UsageError(f"{sides[side].name} cannot run this; see above")
            if not commits[side].startswith(ran := rows[-1]["commit"] or "an unknown commit"):
                raise UsageError(f"{sides[side].name} is {commits[side][:12]}, but what ran is {ran}")


def in_tree(tree: Path, command: Sequence[str], folder: Path) -> int:
    """Run a command in a checkout and return its exit code. If this process is interrupted, so is the command."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "tables.txt", "a") as tables:
        process = subprocess.Popen(
            command,
            cwd=tree,
            env=repository.without_repository(),
            stdin=subprocess.DEVNULL,
            stdout=tables,
            start_new_session=True,  # so that Ctrl-C reaches only us, and we pass it on once
        )
        try:
            code = process.wait()
        except Interrupted:
            process.terminate()
            process.wait()
            raise
    if code == 130:  # the command was interrupted itself, by a signal that did not reach us
        raise Interrupted("stopped with the trial that was under way")
    return code
