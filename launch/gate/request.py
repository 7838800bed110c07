"""The words of `python -m launch gate` and `bisect`, parsed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from bench.options import take_option
from launch.gate import looks
from launch.sweep import option_words

COMMITS = {"gate": "BASE HEAD", "bisect": "GOOD BAD"}
PAIRS = 32
# Options of run that the gate sets itself.
OWN: tuple[str, ...] = ("--repeats", "--repeat", "--order", "--resume", "--retry-failed", "--fail-fast")
OWN += ("--dry-run", "--machines", "--parallel")
# Files that reports compare writes its verdict to, for other programs.
FORMS = ("--markdown", "--junit", "--json", "--smaller-is-better")
# Options whose paths must be absolute, because trials run in the worktrees; with their defaults.
PATHS = {"--data-root": "data", "--weights": None}
# A launch is short unless the words say otherwise: many short launches tell more than few long ones.
SHORT = {"--epochs": "1", "--limit-windows": "100", "--limit-eval": "200"}
LENGTHS = ("--epochs", "--limit-windows", "--limit-train", "--preset")


@dataclass(frozen=True)
class GateRequest:
    """The command line, parsed. `pairs`: the most; `words` are for `launch run`."""

    refs: list[str]
    words: list[str]
    pairs: int
    budget_s: float
    margin: str
    forms: list[str]
    strict: bool
    out: Path


def read(words: Sequence[str], command: str = "gate") -> GateRequest:
    """Separate the command's own options from those of run. Raises UsageError if one is missing or not allowed."""
    refs, rest = list(words[:2]), list(words[2:])
    if len(refs) < 2 or any(ref.startswith("-") for ref in refs) or not rest or rest[0].startswith("-"):
        usage = f"{command} {COMMITS[command]} EXPERIMENT... [options]"
        raise UsageError(f"{command} takes two commits and then what run takes: {usage}")
    if rest[0].endswith(".toml"):
        raise UsageError(f"{command} takes experiments and options, not a study file")
    rest = [option_words.dashed(word) for word in rest]
    for word in rest:
        if word.partition("=")[0] in OWN:
            raise UsageError(f"{command} decides {word} itself; leave it out")
    pairs, rest = take_option(rest, "--pairs")
    budget, rest = take_option(rest, "--budget")
    margin, rest = take_option(rest, "--margin")
    out, rest = take_option(rest, "--out")
    if pairs is not None and (not pairs.isdecimal() or int(pairs) < looks.FEWEST):
        raise UsageError(f"--pairs is {pairs!r}; give {looks.FEWEST} or more")
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
    given = {word.partition("=")[0] for word in rest}
    if not given & set(LENGTHS):
        rest += [word for option, value in SHORT.items() if option not in given for word in (option, value)]
    if "--checkpoint" not in given and "--no-checkpoint" not in given:
        rest.append("--no-checkpoint")
    budget_s = looks.seconds(budget) if budget is not None else math.inf
    folder = Path(out or f"runs/{command}").absolute()
    return GateRequest(refs, rest, int(pairs or PAIRS), budget_s, margin or "1%", forms, strict, folder)
