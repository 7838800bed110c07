"""Projects that are not this suite's: repositories with two commits, and the gate as it is started in one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import CHECKOUT
from launching import with_variables

# A conftest.py with which rounds take turns for a tenth of the usual time.
SHORT = "from bench.pytest_plugins import in_turns\nin_turns.SHORTEST_S = 0.2\n"


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.run(["git", *who, "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout


def commit(folder: Path, tag: str, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", tag)
    git(folder, "tag", tag)


def gate(folder: Path, *words: str) -> tuple[int, str]:
    """(exit code, all that it prints) of the gate, as started in a project."""
    env = with_variables({"PYTHONPATH": str(CHECKOUT), "PYTEST_ADDOPTS": None})
    command = [sys.executable, "-m", "launch", "gate", *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=250)
    assert git(folder, "worktree", "list").count("\n") == 1, "a worktree is left"
    return done.returncode, done.stdout + done.stderr
