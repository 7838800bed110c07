"""Time two commits against each other on this machine, in turn, and say whether the second is worse.

usage: python -m launch gate BASE_REF HEAD_REF EXPERIMENT... [--pairs N] [--margin SHARE] [--fail-inconclusive]
                  [--markdown FILE] [--junit FILE] [--json FILE] [--smaller-is-better FILE] [options as of run]

--pairs   launches of each commit before the first look (16)
--margin  a change that matters (2%)

Each commit has a worktree of its own and runs the same trials; `python -m reports compare` then compares the pairs. If
it finds something worse, or cannot tell, as many pairs again are run, and the verdict is that on all of them. An alarm
is only given at that second look, whose number of pairs was fixed beforehand, so that looking twice causes no more
false alarms.

Exit code 0: nothing is worse as far as can be told; 1: the second commit is slower, larger or less accurate by more
than the margin; 3: they cannot be compared; 4: nothing can be told, and --fail-inconclusive was given.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from bench.machine import repository
from bench.machine.environment import CHECKOUT
from bench.options import take_option
from bench.terminal import say
from launch.sweep import commit_pairs, option_words

PAIRS = 16
# False alarms that compare may give: 1%, not its default of 5%, because each blocks a merge.
LEVEL = "0.01"
# Options of run that this command sets itself.
OWN = ("--repeats", "--repeat", "--order", "--resume", "--retry-failed", "--dry-run", "--machines")
# Files that reports compare writes its verdict to, for other programs.
FORMS = ("--markdown", "--junit", "--json", "--smaller-is-better")
# Options whose paths must be absolute, because trials run in the worktrees; with their defaults.
PATHS = {"--data-root": "data", "--weights": None}
REGRESSED, INCONCLUSIVE = 1, 4


def run(words: Sequence[str]) -> int:
    """Run the pairs and return the exit code of the verdict."""
    gate_request = read(words)
    judged = ["--margin", gate_request.margin, "--level", LEVEL, "--fail-inconclusive", *gate_request.forms]
    # With --help, compare still checks the options before it: a wrong one is refused before hours of trials.
    if compare(*judged, "--help", stdout=subprocess.DEVNULL):
        return 2  # it has printed the error
    repository.require_top_level(commit_pairs.REPOSITORY)
    commits = [repository.resolve(commit_pairs.REPOSITORY, ref) for ref in gate_request.refs]
    if gate_request.out.exists() and (not gate_request.out.is_dir() or any(gate_request.out.iterdir())):
        raise UsageError(f"{gate_request.out} is there already; choose another --out, or remove it")
    if commits[0] == commits[1]:
        say(f"both are commit {commits[0][:12]}: this measures the machine's noise")
    if not repository.is_clean(commit_pairs.REPOSITORY, untracked=False):
        say("uncommitted changes are in neither commit, and not measured")
    sides = [gate_request.out / side for side in ("base", "head")]
    with commit_pairs.worktrees(commits) as trees:
        for look in (0, 1):
            pairs = range(look * gate_request.pairs, (look + 1) * gate_request.pairs)
            commit_pairs.measure(trees, commits, sides, gate_request.words, pairs)
            code = compare(*map(str, sides), *judged)
            if code not in (REGRESSED, INCONCLUSIVE):  # well at the first look, or not comparable
                return code
            if look == 0:
                say(f"that is for all {2 * gate_request.pairs} pairs to decide: {gate_request.pairs} more")
    return 0 if code == INCONCLUSIVE and not gate_request.strict else code


@dataclass(frozen=True)
class GateRequest:
    """The command line, parsed. `pairs` are run before each of the two looks; `words` are for `launch run`."""

    refs: list[str]
    words: list[str]
    pairs: int
    margin: str
    forms: list[str]
    strict: bool
    out: Path


def read(words: Sequence[str]) -> GateRequest:
    """Separate the gate's own options from those of run. Raises UsageError if one is missing or not allowed."""
    refs, rest = list(words[:2]), list(words[2:])
    if len(refs) < 2 or any(ref.startswith("-") for ref in refs) or not rest or rest[0].startswith("-"):
        raise UsageError("gate takes two commits and then what run takes: gate BASE HEAD EXPERIMENT... [options]")
    if rest[0].endswith(".toml"):
        raise UsageError("gate takes experiments and options, not a study file")
    rest = [option_words.dashed(word) for word in rest]
    for word in rest:
        if word.partition("=")[0] in OWN:
            raise UsageError(f"gate decides {word} itself; leave it out")
    pairs, rest = take_option(rest, "--pairs")
    margin, rest = take_option(rest, "--margin")
    out, rest = take_option(rest, "--out")
    if pairs is not None and (not pairs.isdecimal() or int(pairs) < 2):
        raise UsageError(f"--pairs is {pairs!r}; give 2 or more")
    for option, default in PATHS.items():
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
    folder = Path(out or "runs/gate").absolute()
    return GateRequest(refs, rest, int(pairs or PAIRS), margin or "2%", forms, strict, folder)


def compare(*words: str, stdout: int | None = None) -> int:
    """Run `python -m reports compare` and return its exit code."""
    command = [sys.executable, "-m", "reports", "compare", *words]
    return subprocess.run(command, cwd=CHECKOUT, stdout=stdout, check=False).returncode
