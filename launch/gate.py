"""`python -m launch gate BASE_REF HEAD_REF ...`: two commits timed against each other on this machine, in turn.

Each has a worktree of its own and runs the same trials, base head, head base, ... with a coin thrown for who begins;
`python -m reports compare` then looks at the pairs. What it finds worse, or cannot tell, is measured once more from the
start: an alarm is one that both measurements give. Declared beforehand, it is no search for a better answer.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.environment import CHECKOUT
from bench.outcome import Interrupted
from bench.progress import say
from bench.record import RunFolder
from bench.trial import UsageError
from launch import request

REPOSITORY = CHECKOUT
PAIRS = 12
LEVEL = "0.01"
# What this decides itself of the options of run.
OWN = ("--out", "--repeats", "--repeat", "--order", "--resume", "--retry-failed", "--dry-run", "--machines")
REGRESSED, INCONCLUSIVE = 1, 4


def run(words: Sequence[str]) -> int:
    """0: nothing got worse as far as can be told, 1: something did, 3: not comparable, 4: as reports compare."""
    refs, rest = list(words[:2]), list(words[2:])
    if len(refs) < 2 or any(ref.startswith("-") for ref in refs) or not rest or rest[0].startswith("-"):
        raise UsageError("gate takes two commits and then what run takes: gate BASE HEAD EXPERIMENT... [options]")
    pairs, rest = take(rest, "--pairs", str(PAIRS))
    margin, rest = take(rest, "--margin", "2%")
    out, rest = take(rest, "--out", "runs/gate")
    root, rest = take(rest, "--data-root", "data")
    strict = "--fail-inconclusive" in rest
    rest = [word for word in rest if word != "--fail-inconclusive"]
    if rest[0].endswith(".toml"):
        raise UsageError("gate takes experiments and options, not a study file")
    rest = [request.dashed(word) for word in rest]
    for word in rest:
        if word.partition("=")[0] in OWN:
            raise UsageError(f"gate decides {word} itself; leave it out")
    if not pairs.isdecimal() or int(pairs) < 2:
        raise UsageError(f"--pairs is {pairs!r}; give 2 or more")
    commits = [commit(ref) for ref in refs]
    folder = Path(out).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; choose another --out, or remove it")
    rest += ["--data-root", str(Path(root).absolute())]
    with worktrees(commits) as trees:
        code = attempt(folder / "first", trees, commits, rest, int(pairs), margin)
        if code not in (REGRESSED, INCONCLUSIVE):
            return code
        say("measured once more")
        again = attempt(folder / "second", trees, commits, rest, int(pairs), margin)
    if REGRESSED in (code, again) and INCONCLUSIVE in (code, again):
        return INCONCLUSIVE  # an alarm is one in both; one that was not taken back is no pass either
    return 0 if again == INCONCLUSIVE and not strict else again


def attempt(
    folder: Path, trees: Sequence[Path], commits: Sequence[str], words: Sequence[str], pairs: int, margin: str
) -> int:
    """Measure from the start, and what reports compare then says."""
    sides = [folder / side for side in ("base", "head")]
    measure(trees, commits, sides, words, pairs)
    return verdict(sides, margin)


def take(words: Sequence[str], option: str, default: str) -> tuple[str, list[str]]:
    """(the option's value, the other words)."""
    rest = list(words)
    value = default
    for place, word in enumerate(words):
        name, equals, given = word.partition("=")
        if name == option:
            end = place + 1 if equals else place + 2
            if not equals and end > len(words):
                raise UsageError(f"{option} has no value; give one")
            value, rest = given if equals else words[place + 1], [*words[:place], *words[end:]]
            break
    return value, rest


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
    trees: Sequence[Path], commits: Sequence[str], sides: Sequence[Path], words: Sequence[str], pairs: int
) -> None:
    """Launch all trials of both, in pairs. UsageError: one of them cannot run them, or is not what runs."""
    for number in range(pairs):
        order = [0, 1] if random.random() < 0.5 else [1, 0]
        for side in order:
            say(f"pair {number + 1} of {pairs}: {sides[side].name}")
            more = ["--out", str(sides[side]), "--repeat", str(number)]
            code = in_tree(trees[side], [sys.executable, "-m", "launch", "run", *words, *more], sides[side])
            rows = RunFolder(sides[side]).rows("trials")
            if code == 2 or not rows:
                raise UsageError(f"{sides[side].name} cannot run this; see above")
            if not commits[side].startswith(ran := rows[-1]["commit"]):
                raise UsageError(f"{sides[side].name} is {commits[side][:12]}, but what ran is {ran}")


def in_tree(tree: Path, command: Sequence[str], folder: Path) -> int:
    """The exit code of a command run in a checkout, which is ended in good order if this one is."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "tables.txt", "a") as tables:
        process = subprocess.Popen(command, cwd=tree, env=without_git(), stdin=subprocess.DEVNULL, stdout=tables)
        try:
            code = process.wait()
        except Interrupted:
            process.terminate()
            process.wait()
            raise
    if code == 130:
        raise Interrupted("stopped with the trial that was under way")
    return code


def verdict(sides: Sequence[Path], margin: str) -> int:
    """What reports compare says of the two run folders, which it prints."""
    command = [sys.executable, "-m", "reports", "compare", *map(str, sides), "--margin", margin]
    done = subprocess.run([*command, "--level", LEVEL, "--fail-inconclusive"], cwd=CHECKOUT, check=False)
    return done.returncode
