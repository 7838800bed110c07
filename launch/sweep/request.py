"""All that one `python -m launch run` asks for, from its words and the study file among them. Imports no torch."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagConversionOff

from bench import experiments
from bench.errors import UsageError
from bench.options import Options, parse, take_option
from bench.trial import Trial
from bench.trial import option as spelling
from launch import run_options
from launch.memory import limits
from launch.run_options import RunOptions
from launch.sweep import matrix, study_file
from launch.sweep.study_file import Study

# Options that are switched on by their name alone, and off by --no-NAME.
SWITCHES = {name for name, kind in study_file.kinds().items() if kind is bool and name not in study_file.SEVERAL}
# Options that make no other trials.
ASIDE = {*run_options.FIELDS, *(field.name for field in dataclasses.fields(Options))} - {"repeats"}


@dataclass(frozen=True)
class RunRequest:
    """What to run, in which order, and how."""

    trials: list[Trial]
    options: Options
    run_options: RunOptions
    gpus: int
    axes: list[str]
    """The fields in which trials differ by request, for their titles."""
    skip_over_limit: bool
    study: Study | None


@dataclass(frozen=True)
class HelpOptions:
    """All that --help lists."""

    trial: Annotated[Trial, FlagConversionOff]
    options: Options = field(default_factory=Options)
    run_options: RunOptions = field(default_factory=RunOptions)


def read(words: Sequence[str]) -> RunRequest:
    """What these words ask for: experiments or one study file, then options, which replace the file's.

    UsageError: something is unknown, contradicts another or cannot be.
    """
    names, rest = split(words)
    study = None
    if names[0].endswith(".toml"):
        study = study_file.read(Path(names[0]))
        study, rest = over(study, rest)
        names = list(study.experiments)
    if {"-h", "--help"} & set(rest):
        show_help(names[0])
    check_options(rest)
    how, rest = take_run_options(rest, f"python -m launch run {names[0]}")
    arms, rest = take_option(rest, "--arm")
    gpus, rest = limits.take_device(rest)
    skip, rest = limits.take_flag(limits.in_bytes(rest, gpus), limits.SKIP)
    _, rest = limits.take_flag(rest, "--no-skip-over-limit")  # over a study's
    found: dict[Trial, None] = {}
    for name, own in arms_of(names, arms).items():
        trials, options = matrix.trials(name, own, rest)
        found |= dict.fromkeys(trials)
    if how.retry_failed and not options.resume:
        raise UsageError("--retry-failed is a way to resume; give --resume too")
    axes = matrix.axes(rest)
    if "repeat" in fields(rest):
        return RunRequest(list(found), options, how, gpus, axes, skip, study)
    axes += ["repeat"] if how.repeats > 1 else []
    return RunRequest(matrix.repeated(list(found), how.repeats, how.order), options, how, gpus, axes, skip, study)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(experiments or a study file, the options behind them with dashes in their names)."""
    end = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    names, rest = list(words[:end]), list(words[end:])
    if not names and "preset" in fields(rest):
        names = experiments.names()
    if not names:
        choose = ", ".join(experiments.names())
        raise UsageError(f"run needs an experiment or a study file first; choose from: {choose}; or see studies/")
    files = [name for name in names if name.endswith(".toml")]
    if files and len(names) > 1:
        raise UsageError(f"the study file {files[0]} names its experiments itself; give it alone, options after it")
    return names, [dashed(word) for word in rest]


def dashed(word: str) -> str:
    """An option with dashes in its name, any other word as it is."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def field_of(option: str) -> str:
    """What an option sets, by --NAME or by --no-NAME."""
    name = matrix.field_of(option)
    return name.removeprefix("no_") if name.removeprefix("no_") in SWITCHES else name


def fields(words: Sequence[str]) -> list[str]:
    """What the options among the words set."""
    return [field_of(option) for option, _ in matrix.grouped(words)]


def over(study: Study, words: Sequence[str]) -> tuple[Study, list[str]]:
    """(the study, knowing what replaces its own; all options that then hold)."""
    given = set(fields(words))
    own = pick(study.words, {name for name in fields(study.words) if name not in given})
    replaced = pick(words, given - ASIDE)
    return dataclasses.replace(study, replaced=tuple(replaced)), [*own, *words]


def pick(words: Sequence[str], wanted: Collection[str]) -> list[str]:
    """The options that set one of these fields, with their values."""
    groups = [[option, *values] for option, values in matrix.grouped(words) if field_of(option) in wanted]
    return list(itertools.chain.from_iterable(groups))


def check_options(words: Sequence[str]) -> None:
    """UsageError: an option does not exist, is given twice, or contradicts another."""
    known = study_file.kinds()
    seen = set()
    for option, values in matrix.grouped(words):
        name = field_of(option)
        if name not in known:
            said = study_file.nearest(option, map(spelling, known))
            raise UsageError(f"run has no option {option or values[0]!r}; {said}")
        if name in seen:
            raise UsageError(f"{option} is given more than once; give it once, several values with commas between")
        seen.add(name)
    if {"repeat", "repeats"} <= seen:
        raise UsageError("--repeats makes the repeats 0, 1, ... itself; leave --repeat out")
    if "machines" in matrix.axes(words):
        raise UsageError("--machines takes one value, since each machine runs a command of its own; give one")


def take_run_options(words: Sequence[str], prog: str) -> tuple[RunOptions, list[str]]:
    """(how the sweep is conducted, the other words)."""
    others = set(fields(words)) - run_options.FIELDS
    how = parse(RunOptions(), pick(words, run_options.FIELDS), prog, "How the trials are run.")
    return how, pick(words, others)


def arms_of(names: Sequence[str], arms: str | None) -> dict[str, str | None]:
    """Experiment -> those of the named arms that it has; None: all. UsageError: an arm or an experiment has none."""
    if arms is None:
        return dict.fromkeys(names)
    named = arms.split(",")
    has = {name: [arm for arm in named if arm in experiments.load(name).arms] for name in names}
    for arm in named:
        if not any(arm in found for found in has.values()):
            raise UsageError(f"no arm {arm!r} in {' or '.join(has)}; choose from: {', '.join(all_arms(names))}")
    for name, found in has.items():
        if not found:
            choose = ", ".join(experiments.load(name).arms)
            raise UsageError(f"{name} has no arm {arms!r}; leave it out or choose one of its own too: {choose}")
    return {name: ",".join(found) for name, found in has.items()}


def all_arms(names: Sequence[str]) -> list[str]:
    """The arms of these experiments, each once."""
    return list(dict.fromkeys(arm for name in names for arm in experiments.load(name).arms))


def show_help(name: str) -> None:
    """Print the options over an experiment's own settings, and exit."""
    experiment = experiments.load(name)
    arms = list(experiment.arms)
    about = f"{experiment.question} Arms (--arm A,B; default all): {', '.join(arms)}. --device and --memory-limit: see "
    parse(
        HelpOptions(experiment.trial(name, arms[0])), ["--help"], f"python -m launch run {name}", f"{about}run --help."
    )
