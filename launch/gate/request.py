"""The words of `python -m launch gate` and `bisect`: their options, declared and parsed."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import own_file
from bench.arguments import Parser
from bench.data import class_folders
from bench.errors import UsageError
from bench.trial import option as spelling
from launch.gate import looks, project_table
from launch.sweep import arguments as declared
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
BY_TIME = "--by-time"
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
    out_given: bool = True
    """Whether --out was given; if not, and `out` is in use, the next free name is taken (launch.gate.out_folder)."""
    pytest: bool = False
    by_time: bool = False
    """Of bisect: time the commits even if counts differ."""


def arguments(parser: Parser, command: str) -> None:
    """Declare what `command` takes, gate or bisect."""
    for name in COMMITS[command].split():
        parser.add_argument(name.lower(), metavar=name, help="a commit, a branch or a tag")
    declared.experiments_argument(parser)
    if command == "gate":
        tests = "in place of EXPERIMENT...: compare two commits of your own project; what is behind it is pytest's"
        parser.add_argument(PYTEST, nargs="*", metavar="PATH", help=tests)
    own_arguments(parser, command)
    hidden = {*map(option_words.field_of, OWN), *declared.GROUPS[declared.MACHINES]}
    if command == "gate":
        default, folder = "runs/gate, or the next free one: runs/gate-2, ...", "A new folder for the launches of both."
        declared.run_options(parser, hidden, default, out_help=folder)
    else:
        declared.run_options(parser, hidden, f"runs/{command}")


def own_arguments(parser: Parser, command: str, trials: bool = True) -> None:
    """Declare the options that `command` has itself. `trials`: it is about trials, not about the tests of a project."""
    group = parser.add_argument_group("the comparison")
    group.add_argument("--pairs", metavar="N", help=f"most launches of each commit (default: {PAIRS})")
    time = "the time that one comparison may take, such as 5min; at least three pairs are run (default: no limit)"
    group.add_argument("--budget", metavar="TIME", help=time)
    # MARGIN ends in a %, and a help has two for each.
    group.add_argument("--margin", metavar="SHARE", help=f"a change that matters (default: {MARGIN}%)")
    alone = "look after all pairs alone, as for python -m reports selftest"
    group.add_argument(ALL_PAIRS, action="store_true", help=alone)
    if trials:
        seeds = "run a pair for each of so many seeds, whole trainings, and compare accuracies over them"
        group.add_argument("--seeds", metavar="N", help=seeds)
        accuracy = "with --seeds: a loss of accuracy that matters, in percentage points (default: 0.5)"
        group.add_argument("--accuracy-margin", metavar="POINTS", help=accuracy)
    if command == "bisect":
        group.add_argument(BY_TIME, action="store_true", help="time the commits even if counts differ between them")
    hidden = None if command == "gate" else argparse.SUPPRESS  # bisect gives no verdict, and says so
    group.add_argument(STRICT, action="store_true", help=hidden or "exit code 4 if nothing can be told")
    for form in FORMS:
        said = "also write the verdict to this file, as compare does"
        group.add_argument(form, metavar="FILE", help=hidden or said)


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
    own, rest = take_own(rest, command, trials=False)
    table = project_table.as_options(project_table.read(folder or Path.cwd()), PYTEST_KEY, VALUES, FLAGS)
    if rest[:1] != [PYTEST] and (rest or PYTEST_KEY not in table):
        raise UsageError(usage)
    words = rest[1:] or table.pop(PYTEST_KEY, [])
    return request(refs, list(words), {**table, **own}, [], pytest=True)


def of_trials(refs: list[str], rest: list[str], command: str) -> GateRequest:
    """The request to compare trials."""
    if rest[0].endswith(".toml"):
        raise UsageError(f"{command} takes experiments and options, not a study file")
    if command == "gate" and any(word.partition("=")[0] == PYTEST for word in rest):
        experiments = " ".join(itertools.takewhile(lambda word: not word.startswith("-"), rest))
        raise UsageError(f"{PYTEST} stands in place of an experiment; leave {experiments} out")
    for word in rest:
        if word.partition("=")[0] in OWN:
            raise UsageError(f"{command} decides {word} itself; leave it out")
    own, rest = take_own(rest, command)
    check_known(rest, command)
    seeds, accuracy_margin = own.pop("--seeds", None), own.pop("--accuracy-margin", None)
    check_count("--pairs", own.get("--pairs"))
    check_count("--seeds", seeds)
    if seeds and "--pairs" in own:
        raise UsageError("--seeds is the number of pairs as well, one for each seed; leave --pairs out")
    if accuracy_margin and not seeds:
        raise UsageError(f"--accuracy-margin {accuracy_margin} is for accuracies over seeds; give --seeds")
    for option, default in PATHS.items():
        value, rest = take_path(rest, option, command)
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
    own = {**own, **({"--pairs": seeds, "--all-pairs": ""} if seeds else {})}
    return request(refs, rest, own, over, default_out=f"runs/{command}")


def take_own(rest: list[str], command: str, trials: bool = True) -> tuple[dict[str, str], list[str]]:
    """(the command's own options and their values, "" for a flag; the other words)."""
    parser = Parser(f"python -m launch {command}")
    own_arguments(parser, command, trials)
    parser.add_argument("--out")
    found, rest = parser.parse_known_args(rest)
    values = {spelling(name): getattr(found, name) for name in found.given}
    return {option: "" if value is True else value for option, value in values.items()}, rest


def take_path(rest: list[str], option: str, command: str) -> tuple[str | None, list[str]]:
    """(the value of one option, the other words)."""
    parser = Parser(f"python -m launch {command}")
    parser.add_argument(option, dest="path")
    found, rest = parser.parse_known_args(rest)
    return found.path, rest


def check_known(words: Sequence[str], command: str) -> None:
    """Raises UsageError for words that `run` does not take, before a worktree is made."""
    parser = Parser(f"python -m launch {command}")
    arguments(parser, command)
    parser.parse_args([*COMMITS[command].split(), *words])


def request(
    refs: list[str],
    words: list[str],
    own: Mapping[str, str],
    over: list[str],
    pytest: bool = False,
    default_out: str = "runs/gate",
) -> GateRequest:
    """The request with the values of the gate's own options. `over`: options of compare. UsageError: one is wrong."""
    pairs = own.get("--pairs", str(PAIRS))
    check_count("--pairs", pairs)
    budget_s = looks.seconds(own["--budget"]) if "--budget" in own else math.inf
    judged = ["--margin", own.get("--margin", MARGIN), *over]
    judged += [word for option in FORMS if option in own for word in (option, str(Path(own[option]).absolute()))]
    out, out_given = Path(own.get("--out", default_out)).absolute(), "--out" in own
    strict, all_pairs, seeds, by_time = STRICT in own, ALL_PAIRS in own, "--over" in over, BY_TIME in own
    found = GateRequest(refs, words, int(pairs), budget_s, all_pairs, seeds, judged, strict, out, out_given)
    return dataclasses.replace(found, pytest=pytest, by_time=by_time)


def check_count(option: str, value: str | None) -> None:
    """Raises UsageError if the option is given, and is no number of pairs."""
    if value is not None and (not value.isdecimal() or int(value) < looks.FEWEST):
        raise UsageError(f"{option} is {value!r}; give {looks.FEWEST} or more")
