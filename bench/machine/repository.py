"""git in a checkout: its commit, its changes, and worktrees of other commits. Imports no torch.

Variables that point git at a repository are dropped: in a hook, they would point every command here at the hook's one.
Those that configure git (GIT_CONFIG_COUNT, GIT_SSL_CAINFO) stay: some machines allow a checkout of another user's so.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.errors import UsageError
from bench.terminal import say

# What `git rev-parse --local-env-vars` lists although it names no repository.
CONFIGURES = frozenset({"GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS"})
# What git says of a repository that belongs to another user: the command that allows it.
ALLOW = re.compile(r"git config --global --add safe\.directory .+")


def git(folder: Path, *words: str) -> str:
    """What git prints in this folder, without the last line's end.

    Raises UsageError if git is missing, refuses the repository or fails.
    """
    # LANGUAGE: messages are read below. No optional locks: a status must not get in the way of the user's own git.
    variables = {**without_repository(), "LANGUAGE": "C", "GIT_OPTIONAL_LOCKS": "0"}
    done = start(["-C", str(folder), *words], variables)
    if done.returncode:
        raise UsageError(explain(folder, words, os.fsdecode(done.stderr)))
    return os.fsdecode(done.stdout).removesuffix("\n")


def start(words: list[str], variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """git, when it has ended. Raises UsageError if it cannot be started."""
    try:
        return subprocess.run(
            ["git", *words], env=variables, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except FileNotFoundError as error:
        raise UsageError("there is no git on PATH; install git, or add its folder to PATH") from error
    except OSError as error:
        raise UsageError(f"git cannot be started: {error}; check the git that PATH leads to") from error


def explain(folder: Path, words: tuple[str, ...], said: str) -> str:
    """What git said as one sentence with the next move."""
    if allow := ALLOW.search(said):
        return f"git refuses {folder}, because another user owns it; if you trust it, run: {allow[0]}"
    if "not a git repository (or any" in said:
        return f"{folder} is in no git repository; run this in a checkout made with git clone"
    return f"git {' '.join(words)} in {folder} failed: {' '.join(said.split())}"


@functools.cache
def points_at_repository() -> frozenset[str]:
    """The variables that name a repository or a part of one, by this machine's git."""
    done = start(["rev-parse", "--local-env-vars"])
    if done.returncode:
        raise UsageError(f"git rev-parse --local-env-vars failed: {' '.join(os.fsdecode(done.stderr).split())}")
    return frozenset(os.fsdecode(done.stdout).split()) - CONFIGURES


def without_repository() -> dict[str, str]:
    """The environment without those. UsageError: see git()."""
    dropped = points_at_repository()
    return {name: value for name, value in os.environ.items() if name not in dropped}


def top_level(folder: Path) -> Path:
    """The top folder of the checkout that this folder is in. Raises UsageError if it is in none."""
    return Path(git(folder, "rev-parse", "--show-toplevel"))


def require_top_level(checkout: Path) -> None:
    """Raise UsageError unless this is a checkout's top folder.

    What was unpacked inside another repository has no commits of its own, and git would take that one's.
    """
    if not checkout.samefile(top := top_level(checkout)):
        raise UsageError(f"{checkout} is no git checkout, but a folder of the one in {top}; get it with git clone")


def require_tracked(folder: Path) -> None:
    """Raise UsageError unless the checkout's commit has this folder.

    A folder in a checkout may be a part of it, or something that was unpacked there.
    """
    if not revision(folder, "HEAD:./"):
        raise UsageError(
            f"{folder} is no part of the commit in {top_level(folder)}; commit it, or get it with git clone"
        )


def state(checkout: Path) -> tuple[str, bool]:
    """(hash of the checkout's commit, whether it is clean). Raises UsageError if git knows none of this folder."""
    require_top_level(checkout)
    return resolve(checkout, "HEAD"), is_clean(checkout)


def commit(checkout: Path) -> tuple[str | None, bool | None]:
    """state(), or (None, None) where it is not known."""
    try:
        return state(checkout)
    except (UsageError, OSError):
        return None, None


def is_clean(repository: Path, untracked: bool = True) -> bool:
    """Whether nothing is uncommitted, submodules included. `untracked`: files that git does not know count too."""
    return not git(repository, "status", "--porcelain", f"--untracked-files={'normal' if untracked else 'no'}")


def resolve(repository: Path, ref: str) -> str:
    """The hash of the commit that a branch, a tag, a hash or the like means. Raises UsageError if there is none."""
    if sha := found(repository, ref):
        as_branch = None if ref == "HEAD" else found(repository, f"refs/heads/{ref}")
        if as_branch not in (None, sha):  # git takes the tag here, and the branch elsewhere
            raise UsageError(f"{ref!r} in {repository} is a branch and something else; give heads/{ref} or tags/{ref}")
        return sha
    missing = f"no commit {ref!r} in {repository}"
    if not git(repository, "rev-list", "--all", "--max-count=1") and not found(repository, "HEAD"):
        raise UsageError(f"{missing}, which has no commit yet; run git commit first")
    if found(repository, f"origin/{ref}"):
        raise UsageError(f"{missing}; there is 'origin/{ref}'")
    if git(repository, "rev-parse", "--is-shallow-repository") == "true":
        raise UsageError(
            f"{missing}, which is a shallow clone; run git fetch --unshallow, or clone it whole "
            "(actions/checkout: fetch-depth: 0)"
        )
    raise UsageError(f"{missing}; give a branch, a tag or a hash")


def found(repository: Path, ref: str) -> str | None:
    """The hash of the commit that a ref means; None: there is no such commit. UsageError: see git()."""
    return revision(repository, f"{ref}^{{commit}}")


def revision(folder: Path, words: str) -> str | None:
    """The hash of what git calls by these words; None: there is no such thing. UsageError: see git()."""
    try:
        return git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", words)
    except UsageError:
        git(folder, "rev-parse", "--git-dir")  # raises if it is not the words that are wrong
        return None


@contextlib.contextmanager
def worktree(repository: Path, sha: str, folder: Path) -> Iterator[Path]:
    """A checkout of a commit in this new folder, removed when the block ends.

    `repository` is a checkout's top folder. Submodules that are checked out there are checked out here too, each as the
    commit has it, from its repository there: nothing is downloaded. Raises UsageError if a commit is not there.
    """
    if folder.exists() and any(folder.iterdir()):  # it must not be removed below
        raise UsageError(f"{folder} is there already; choose another folder for {sha[:12]}, or remove it")
    with contextlib.ExitStack() as stack:
        stack.callback(remove, repository, folder)  # before: git may fail half-way
        git(repository, "worktree", "add", "--quiet", "--detach", str(folder.absolute()), sha)
        for path, pinned in submodules(repository, sha):
            own = repository / path
            if not (own / ".git").exists():
                say(f"submodule {path} is left empty, because it is not checked out in {repository}")
                continue
            if not found(own, pinned):
                raise UsageError(f"{own} lacks the commit {pinned[:12]} that {sha[:12]} needs; run: git -C {own} fetch")
            stack.enter_context(worktree(own, pinned, folder / path))
        yield folder


def submodules(repository: Path, sha: str) -> list[tuple[str, str]]:
    """(path, hash) of each submodule of a commit."""
    entries = git(repository, "ls-tree", "-r", "-z", "--full-tree", sha).split("\0")
    pairs = [entry.partition("\t")[::2] for entry in entries if entry.startswith("160000 ")]
    return [(path, facts.split()[2]) for facts, path in pairs]


def remove(repository: Path, folder: Path) -> None:
    """Remove a worktree. What fails is said and no more: an error of the block before matters more."""
    if folder.exists():
        try:
            git(repository, "worktree", "remove", "--force", "--force", str(folder.absolute()))
        except UsageError as error:
            say(str(error))
