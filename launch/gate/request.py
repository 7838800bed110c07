"""The words of `python -m launch gate` and `bisect`, parsed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import own_file
from bench.data import class_folders
from bench.errors import UsageError
from bench.options import take_option
from launch.gate import looks, project_table
from launch.sweep import option_words

COMMITS = {"gate": "BASE HEAD", "bisect": "GOOD BAD"}
PAIRS = 32
MARGIN = "1%"
# Options of run that the gate sets itself.
OWN: tuple[str, ...] = ("--repeats", "--repeat", "--order", "--resume", "--retry-failed", "--fail-fast")
OWN += ("--dry-run", "--machines", "--parallel")
# Files that reports compare writes its verdict to, for other programs.
FORMS = ("--markdown", "--junit", "--json", "--smaller-is-better")
STRICT, ALL_PAIRS = FLAGS = ("--fail-inconclusive", "--all-pairs")
VALUES = ("--pairs", "--budget", "--margin", "--out", *FORMS)
PYTEST, PYTEST_KEY = "--pytest", "pytest"
IN_PROJECT = "; or, in a project of your own: gate BASE HEAD --pytest PATH..., or pytest = [PATH, ...] in "
IN_PROJECT += "[tool.resbench.gate] of its pyproject.toml"
# Options whose paths must be absolute, because trials run in the worktrees; with their defaults.
PATHS = {"--data-root": "data", "--weights": None}
# A launch is short unless the words say otherwise: many short launches tell more than few long ones.
SHORT = {"--epochs": "1", "--limit-windows": "100", "--limit-eval": "200"}
LENGTHS = ("--epochs", "--limit-windows", "--limit-train", "--preset")


@dataclass(frozen=True)
class GateRequest:
    """The command line, parsed. `pairs`: the most; `words` are for `launch run`, or for pytest if `pytest` is set.

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
    pytest: bool = False


def read(words: Sequence[str], command: str = "gate", folder: Path | None = None) -> GateRequest:
    """Separate the command's own options from those of run, or of pytest. Raises UsageError if one is wrong or missing.

    `command`: gate or bisect, which is for trials alone. `folder`: of the user's project; None: the current one.
    """
    refs, rest = list(words[:2]), list(words[2:])
    two = len(refs) == 2 and not any(ref.startswith("-") for ref in refs)
    if two and rest and not rest[0].startswith("-"):
        return of_trials(refs, [option_words.dashed(word) for word in rest], command)
    usage = f"{command} takes two commits and then what run takes: {command} {COMMITS[command]} EXPERIMENT... [options]"
    usage += IN_PROJECT if command == "gate" else ""
    if not two or command != "gate":
        raise UsageError(usage)
    own, rest = take_own(rest)
    table = project_table.as_options(project_table.read(folder or Path.cwd()), PYTEST_KEY, VALUES, FLAGS)
    if rest[:1] != [PYTEST] and (rest or PYTEST_KEY not in table):
        raise UsageError(usage)
    words = rest[1:] or table.pop(PYTEST_KEY, [])
    return request(refs, list(words), {**table, **own}, [], pytest=True)


def of_trials(refs: list[str], rest: list[str], command: str) -> GateRequest:
    """The request to compare trials."""
    if rest[0].endswith(".toml"):
        raise UsageError(f"{command} takes experiments and options, not a study file")
    for word in rest:
        if word.partition("=")[0] in OWN:
            raise UsageError(f"{command} decides {word} itself; leave it out")
    own, rest = take_own(rest)
    seeds, rest = take_option(rest, "--seeds")
    accuracy_margin, rest = take_option(rest, "--accuracy-margin")
    check_count("--pairs", own.get("--pairs"))
    check_count("--seeds", seeds)
    if seeds and "--pairs" in own:
        raise UsageError("--seeds is the number of pairs as well, one for each seed; leave --pairs out")
    if accuracy_margin and not seeds:
        raise UsageError(f"--accuracy-margin {accuracy_margin} is for accuracies over seeds; give --seeds")
    for option, default in PATHS.items():
        value, rest = take_option(rest, option)
        value = value or default
        if value is not None:
            rest += [option, str(Path(value).absolute()) if default or Path(value).exists() else value]
    count = next((index for index, word in enumerate(rest) if word.startswith("-")), len(rest))
    # Both sides take them as they stand here.
    rest = [*own_file.absolute(rest[:count]), *map(class_folders.absolute, rest[count:])]
    given = {word.partition("=")[0] for word in rest}
    if seeds and "--seed" in given:
        raise UsageError(f"--seeds {seeds} makes the seeds 0, 1, ... itself; leave --seed out")
    if not seeds and not given & set(LENGTHS):  # an accuracy over seeds is that of the whole training
        rest += [word for option, value in SHORT.items() if option not in given for word in (option, value)]
    if "--checkpoint" not in given and "--no-checkpoint" not in given:
        rest.append("--no-checkpoint")
    over = ["--over", "seed"] if seeds else []
    over += ["--accuracy-margin", accuracy_margin] if accuracy_margin else []
    own = {"--out": f"runs/{command}", **own, **({"--pairs": seeds, "--all-pairs": ""} if seeds else {})}
    return request(refs, rest, own, over)


def take_own(rest: list[str]) -> tuple[dict[str, str], list[str]]:
    """(the gate's own options and their values, "" for a flag; the other words)."""
    found = {flag: "" for flag in FLAGS if flag in rest}
    rest = [word for word in rest if word not in FLAGS]
    for option in VALUES:
        value, rest = take_option(rest, option)
        found |= {} if value is None else {option: value}
    return found, rest


def request(
    refs: list[str], words: list[str], own: Mapping[str, str], over: list[str], pytest: bool = False
) -> GateRequest:
    """The request with the values of the gate's own options. `over`: options of compare. UsageError: one is wrong."""
    pairs = own.get("--pairs", str(PAIRS))
    check_count("--pairs", pairs)
    budget_s = looks.seconds(own["--budget"]) if "--budget" in own else math.inf
    judged = ["--margin", own.get("--margin", MARGIN), *over]
    judged += [word for option in FORMS if option in own for word in (option, str(Path(own[option]).absolute()))]
    out = Path(own.get("--out", "runs/gate")).absolute()
    strict, all_pairs = STRICT in own, ALL_PAIRS in own
    return GateRequest(refs, words, int(pairs), budget_s, all_pairs, "--over" in over, judged, strict, out, pytest)


def check_count(option: str, value: str | None) -> None:
    """Raises UsageError if the option is given, and is no number of pairs."""
    if value is not None and (not value.isdecimal() or int(value) < looks.FEWEST):
        raise UsageError(f"{option} is {value!r}; give {looks.FEWEST} or more")
