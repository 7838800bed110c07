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
    """What git prints. UsageError: it fails."""
    command = ["git", "-C", str(REPOSITORY), *words]
    done = subprocess.run(command, env=without_git(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"git {' '.join(words)} failed: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def without_git() -> dict[str, str]:
    """The environment without what git sets in its hooks, where all this would be about the user's own index."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def commit(ref: str) -> str:
    """The commit of a branch, a tag or the like. UsageError: there is none."""
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    except UsageError as error:
        raise UsageError(f"no commit {ref!r} in {REPOSITORY}; give a branch, a tag or a hash") from error


@contextlib.contextmanager
def worktrees(commits: Sequence[str]) -> Iterator[list[Path]]:
    """A checkout of each commit, for as long as this lasts."""
    with tempfile.TemporaryDirectory(prefix="resbench-gate-") as scratch:
        trees = [Path(scratch) / side for side in ("base", "head")]
        try:
            for tree, each in zip(trees, commits, strict=True):
                git("worktree", "add", "--quiet", "--detach", str(tree), each)
            yield trees
        finally:
            for tree in trees:
                if tree.exists():
                    with contextlib.suppress(UsageError):  # what else went wrong is to be told
                        git("worktree", "remove", "--force", "--force", str(tree))


def measure(
    trees: Sequence[Path], commits: Sequence[str], sides: Sequence[Path], words: Sequence[str], pairs: range
) -> None:
    """Launch all trials of both, in pairs of these numbers. UsageError: one cannot run them, or is not what runs."""
    order: list[int] = []
    for number in pairs:
        # As often first as second, so that what a launch leaves behind for the next is no difference.
        order = order[::-1] if (number - pairs.start) % 2 else random.choice([[0, 1], [1, 0]])
        for side in order:
            say(f"pair {number + 1} of {pairs.stop}: {sides[side].name}")
            more = ["--out", str(sides[side]), "--repeat", str(number)]
            code = in_tree(trees[side], [sys.executable, "-m", "launch", "run", *words, *more], sides[side])
            rows = RunFolder(sides[side]).rows("trials")
            if code == 2 or not rows:
                if not any(RunFolder(folder).rows("trials") for folder in sides):
                    for folder in sides:  # it would be in the way of the next gate
                        shutil.rmtree(folder, ignore_errors=True)
                raise UsageError(f"{sides[side].name} cannot run this; see above")
            if not commits[side].startswith(ran := rows[-1]["commit"]):
                raise UsageError(f"{sides[side].name} is {commits[side][:12]}, but what ran is {ran}")


def in_tree(tree: Path, command: Sequence[str], folder: Path) -> int:
    """The exit code of a command run in a checkout, which is ended in good order if this one is."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "tables.txt", "a") as tables:
        process = subprocess.Popen(
            command,
            cwd=tree,
            env=without_git(),
            stdin=subprocess.DEVNULL,
            stdout=tables,
            start_new_session=True,  # of a Ctrl-C this one tells it
        )
        try:
            code = process.wait()
        except Interrupted:
            process.terminate()
            process.wait()
            raise
    if code == 130:
        raise Interrupted("stopped with the trial that was under way")
    return code
