"""Two commits run the same trials in turn on this machine, each from a worktree of its own.

A pair is one launch of each commit. Within a pair the order is drawn by chance (base head, or head base) and the next
pair has the opposite order, so that neither commit profits from running first.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.errors import UsageError
from bench.failure.causes import Interrupted
from bench.machine.environment import CHECKOUT
from bench.record.run_folder import RunFolder
from bench.terminal import say

REPOSITORY = CHECKOUT


def git(*words: str) -> str:
    """What git prints. Raises UsageError if it fails."""
    command = ["git", "-C", str(REPOSITORY), *words]
    done = subprocess.run(command, env=without_git(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"git {' '.join(words)} failed: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def without_git() -> dict[str, str]:
    """The environment without git's variables: in a hook, they would point every git command at the user's index."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def commit(ref: str) -> str:
    """The hash of a branch, a tag or the like. Raises UsageError if there is none."""
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    except UsageError as error:
        raise UsageError(f"no commit {ref!r} in {REPOSITORY}; give a branch, a tag or a hash") from error


@contextlib.contextmanager
def worktrees(commits: Sequence[str]) -> Iterator[list[Path]]:
    """A checkout of each commit, removed when the block ends."""
    with tempfile.TemporaryDirectory(prefix="resbench-gate-") as scratch:
        trees = [Path(scratch) / side for side in ("base", "head")]
        try:
            for tree, each in zip(trees, commits, strict=True):
                git("worktree", "add", "--quiet", "--detach", str(tree), each)
            yield trees
        finally:
            for tree in trees:
                if tree.exists():
                    with contextlib.suppress(UsageError):  # an error of the block matters more
                        git("worktree", "remove", "--force", "--force", str(tree))


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
            if not commits[side].startswith(ran := rows[-1]["commit"]):
                raise UsageError(f"{sides[side].name} is {commits[side][:12]}, but what ran is {ran}")


def in_tree(tree: Path, command: Sequence[str], folder: Path) -> int:
    """Run a command in a checkout and return its exit code. If this process is interrupted, so is the command."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "tables.txt", "a") as tables:
        process = subprocess.Popen(
            command,
            cwd=tree,
            env=without_git(),
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
