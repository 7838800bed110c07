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
MARGIN = "1%"
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
    """The command line, parsed. `pairs`: the most; `words` are for `launch run`.

    With `seeds`, a pair has its number as its seed. `judged`: options of `reports compare`.
    """

    refs: list[str]
    words: list[str]
    pairs: int
    budget_s: float
    all_pairs: bool
    seeds: bool
    judged: list[str]
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
    seeds, rest = take_option(rest, "--seeds")
    margin, rest = take_option(rest, "--margin")
    accuracy_margin, rest = take_option(rest, "--accuracy-margin")
    out, rest = take_option(rest, "--out")
    for option, value in (("--pairs", pairs), ("--seeds", seeds)):
        if value is not None and (not value.isdecimal() or int(value) < looks.FEWEST):
            raise UsageError(f"{option} is {value!r}; give {looks.FEWEST} or more")
    if seeds and pairs:
        raise UsageError("--seeds is the number of pairs as well, one for each seed; leave --pairs out")
    if accuracy_margin and not seeds:
        raise UsageError(f"--accuracy-margin {accuracy_margin} is for accuracies over seeds; give --seeds")
    for option, default in PATHS.items():
        value, rest = take_option(rest, option)
        value = value or default
        if value is not None:
            rest += [option, str(Path(value).absolute()) if default or Path(value).exists() else value]
    judged = ["--margin", margin or MARGIN, *(["--over", "seed"] if seeds else [])]
    judged += ["--accuracy-margin", accuracy_margin] if accuracy_margin else []
    for option in FORMS:
        value, rest = take_option(rest, option)
        judged += [] if value is None else [option, str(Path(value).absolute())]
    strict, all_pairs = "--fail-inconclusive" in rest, "--all-pairs" in rest
    rest = [word for word in rest if word not in ("--fail-inconclusive", "--all-pairs")]
    given = {word.partition("=")[0] for word in rest}
    if seeds and "--seed" in given:
        raise UsageError(f"--seeds {seeds} makes the seeds 0, 1, ... itself; leave --seed out")
    if not seeds and not given & set(LENGTHS):  # an accuracy over seeds is that of the whole training
        rest += [word for option, value in SHORT.items() if option not in given for word in (option, value)]
    if "--checkpoint" not in given and "--no-checkpoint" not in given:
        rest.append("--no-checkpoint")
    budget_s = looks.seconds(budget) if budget is not None else math.inf
    most, folder = int(seeds or pairs or PAIRS), Path(out or f"runs/{command}").absolute()
    return GateRequest(refs, rest, most, budget_s, all_pairs or bool(seeds), bool(seeds), judged, strict, folder)
