"""A checkout of each commit to be measured, and what it knows of taking turns."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.errors import UsageError
from bench.instruments.turns import PROTOCOL
from launch.sweep.commit_pairs import git

TURNS_FILE = "bench/instruments/turns.py"


@contextlib.contextmanager
def worktrees(commits: Sequence[str]) -> Iterator[list[Path]]:
    """A checkout of each commit, removed when the block ends."""
    with tempfile.TemporaryDirectory(prefix="resbench-gate-") as scratch:
        trees = [Path(scratch) / str(number) for number in range(len(commits))]
        try:
            for tree, commit in zip(trees, commits, strict=True):
                git("worktree", "add", "--quiet", "--detach", str(tree), commit)
            yield trees
        finally:
            for tree in trees:
                if tree.exists():
                    with contextlib.suppress(UsageError):  # an error of the block matters more
                        git("worktree", "remove", "--force", "--force", str(tree))


def takes_turns(tree: Path) -> bool:
    """Whether the launches of this checkout take turns by the protocol of ours."""
    path = tree / TURNS_FILE
    found = re.search(r"^PROTOCOL = (\d+)$", path.read_text(), re.MULTILINE) if path.is_file() else None
    return found is not None and int(found[1]) == PROTOCOL
