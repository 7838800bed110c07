"""Git, as the gate asks it."""

from __future__ import annotations

import os
import subprocess

from bench.errors import UsageError
from bench.machine.environment import CHECKOUT

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
