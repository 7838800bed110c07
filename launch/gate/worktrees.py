"""A checkout of each commit to be measured, and what it knows of taking turns."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.errors import UsageError
from bench.instruments.turns import PROTOCOL
from bench.machine import environment, repository

TURNS_FILE = "bench/instruments/turns.py"


def require_checkout(checkout: Path, command: str) -> None:
    """Raises UsageError unless this is a git checkout of the suite, whose commits can be compared."""
    if environment.built() is not None:
        what = "compares commits of a git checkout of resbench, and this is an installed wheel"
        raise UsageError(f"{command} {what}; get one with git clone, and run it there")
    repository.require_top_level(checkout)


@contextlib.contextmanager
def worktrees(folder: Path, commits: Sequence[str]) -> Iterator[list[Path]]:
    """A checkout of each commit of the repository in this folder, removed when the block ends."""
    with tempfile.TemporaryDirectory(prefix="resbench-gate-") as scratch, contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(repository.worktree(folder, commit, Path(scratch) / str(number)))
            for number, commit in enumerate(commits)
        ]


def takes_turns(tree: Path) -> bool:
    """Whether the launches of this checkout take turns by the protocol of ours."""
    path = tree / TURNS_FILE
    found = re.search(r"^PROTOCOL = (\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE) if path.is_file() else None
    return found is not None and int(found[1]) == PROTOCOL
