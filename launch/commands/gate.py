"""`python -m launch gate BASE_REF HEAD_REF ...`: two commits timed against each other on this machine, in turn.

Each has a worktree of its own and runs the same trials, base head head base or head base base head, by a coin;
`python -m reports compare` then looks at the pairs. Where it finds something worse, or cannot tell, as many pairs again
are measured, and the verdict is that of all of them. An alarm is only ever given at that second look, on a number of
pairs that was fixed beforehand, so that looking twice makes no false alarm likelier.
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
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from bench.failure.causes import Interrupted
from bench.machine.environment import CHECKOUT
from bench.options import take_option
from bench.record.run_folder import RunFolder
from bench.terminal import say
from launch.sweep import request

REPOSITORY = CHECKOUT
PAIRS = 16
LEVEL = "0.01"
# What this decides itself of the options of run.
OWN = ("--repeats", "--repeat", "--order", "--resume", "--retry-failed", "--dry-run", "--machines")
# Where reports compare is to write what it says, for other programs.
FORMS = ("--markdown", "--junit", "--json", "--smaller-is-better")
PATHS = {"--data-root": "data", "--weights": None}
REGRESSED, INCONCLUSIVE = 1, 4


def run(words: Sequence[str]) -> int:
    """0: nothing got worse as far as can be told, 1: something did, 3: not comparable, 4: as reports compare."""
    asked = read(words)
    judged = ["--margin", asked.margin, "--level", LEVEL, "--fail-inconclusive", *asked.forms]
    if compare(*judged, "--help", stdout=subprocess.DEVNULL):
        return 2  # which it has told
    commits = [commit(ref) for ref in asked.refs]
    if asked.out.exists() and (not asked.out.is_dir() or any(asked.out.iterdir())):
        raise UsageError(f"{asked.out} is there already; choose another --out, or remove it")
    if git("status", "--porcelain", "--untracked-files=no"):
        say("uncommitted changes are in neither commit, and not measured")
    sides = [asked.out / side for side in ("base", "head")]
    with worktrees(commits) as trees:
        for look in (0, 1):
            measure(trees, commits, sides, asked.words, range(look * asked.pairs, (look + 1) * asked.pairs))
            code = compare(*map(str, sides), *judged)
            if code not in (REGRESSED, INCONCLUSIVE):
                return code
            if look == 0:
                say(f"that is for all {2 * asked.pairs} pairs to decide: {asked.pairs} more")
    return 0 if code == INCONCLUSIVE and not asked.strict else code


@dataclass(frozen=True)
class Asked:
    """What a command line asks for; `pairs` is how many are measured before each of the two looks."""

    refs: list[str]
    words: list[str]
    pairs: int
    margin: str
    forms: list[str]
    strict: bool
    out: Path


def read(words: Sequence[str]) -> Asked:
    """Part the gate's own options from those of run. UsageError: something is missing or not to be given."""
    refs, rest = list(words[:2]), list(words[2:])
    if len(refs) < 2 or any(ref.startswith("-") for ref in refs) or not rest or rest[0].startswith("-"):
        raise UsageError("gate takes two commits and then what run takes: gate BASE HEAD EXPERIMENT... [options]")
    if rest[0].endswith(".toml"):
        raise UsageError("gate takes experiments and options, not a study file")
    rest = [request.dashed(word) for word in rest]
    for word in rest:
        if word.partition("=")[0] in OWN:
            raise UsageError(f"gate decides {word} itself; leave it out")
    pairs, rest = take_option(rest, "--pairs")
    margin, rest = take_option(rest, "--margin")
    out, rest = take_option(rest, "--out")
    if pairs is not None and (not pairs.isdecimal() or int(pairs) < 2):
        raise UsageError(f"--pairs is {pairs!r}; give 2 or more")
    for option, default in PATHS.items():  # in the worktrees they would lead elsewhere
        value, rest = take_option(rest, option)
        value = value or default
        if value is not None:
            rest += [option, str(Path(value).absolute()) if default or Path(value).exists() else value]
    forms = []
    for option in FORMS:
        value, rest = take_option(rest, option)
        forms += [] if value is None else [option, str(Path(value).absolute())]
    strict = "--fail-inconclusive" in rest
    rest = [word for word in rest if word != "--fail-inconclusive"]
    return Asked(refs, rest, int(pairs or PAIRS), margin or "2%", forms, strict, Path(out or "runs/gate").absolute())


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


def compare(*words: str, stdout: int | None = None) -> int:
    """The exit code of reports compare, which prints what it finds."""
    command = [sys.executable, "-m", "reports", "compare", *words]
    return subprocess.run(command, cwd=CHECKOUT, stdout=stdout, check=False).returncode
