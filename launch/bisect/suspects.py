"""The commits of which one did it: `git bisect` chooses the one to be tried next.

Its state belongs to a worktree, so that of the user's checkout, in which he may be bisecting himself, stays as it is.
"""

from __future__ import annotations

from pathlib import Path

from bench.errors import UsageError
from bench.machine import repository
from bench.machine.repository import git


class Suspects:
    """All commits that `bad` has and the good ones have not. `tree`: a worktree in which nobody else bisects."""

    def __init__(self, tree: Path, good: str, bad: str) -> None:
        self.tree, self.bad, self.goods = tree, bad, [good]
        self.skipped: set[str] = set()
        git(tree, "bisect", "start", "--no-checkout", bad, good)

    def all(self) -> list[str]:
        """The commits of which one did it, the newest first; `bad` is among them."""
        return git(self.tree, "rev-list", self.bad, "--not", *self.goods).split()

    def untried(self) -> list[str]:
        """Those of them that are still to be tried."""
        return [commit for commit in self.all() if commit != self.bad and commit not in self.skipped]

    def next(self) -> str:
        """The one to be tried next; there must be an untried one."""
        return repository.resolve(self.tree, "BISECT_HEAD")

    def add(self, commit: str, word: str) -> None:
        """Take the last one for good or bad, or skip it."""
        if word == "bad":
            self.bad = commit
        elif word == "good":
            self.goods.append(commit)
        else:
            self.skipped.add(commit)
        if self.untried():  # with none left, git has no next one and fails
            git(self.tree, "bisect", word, commit)


def check_ends(folder: Path, good: str, bad: str) -> None:
    """Raises UsageError unless the bad commit comes after the good one."""
    if good == bad:
        raise UsageError(f"both are commit {good[:12]}; give a good commit and a later, bad one")
    if not git(folder, "rev-list", "-1", good, f"^{bad}"):
        return
    if not git(folder, "rev-list", "-1", bad, f"^{good}"):
        raise UsageError(f"the bad commit {bad[:12]} comes before the good one, {good[:12]}; give the good one first")
    if git(folder, "rev-parse", "--is-shallow-repository") == "true":
        raise UsageError(f"this shallow clone lacks commits between {good[:12]} and {bad[:12]}; git fetch --unshallow")
    raise UsageError(
        f"{good[:12]} is not in the history of {bad[:12]}; give a commit that is, such as what "
        f"git merge-base {good[:12]} {bad[:12]} prints"
    )


def described(folder: Path, commit: str) -> tuple[str, str]:
    """(date of a commit, its subject without what would steer a terminal)."""
    text = git(folder, "log", "-1", "--no-show-signature", "--format=%as%x00%s", commit)
    date, _, subject = text.partition("\0")
    return date, "".join(letter if letter.isprintable() else "?" for letter in subject)
