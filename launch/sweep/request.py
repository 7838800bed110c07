"""What one `python -m launch run` is to do, from its words and a study file among them. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagConversionOff

from bench import experiments, own_file
from bench.data import class_folders
from bench.errors import UsageError
from bench.options import Options, parse, take_option
from bench.trial import Trial
from bench.trial import option as spelling
from launch import run_options
from launch.memory import limits
from launch.run_options import RunOptions
from launch.sweep import matrix, option_words, study_file
from launch.sweep.study_file import Study

# Options that do not change which trials are run.
TRIAL_NEUTRAL = {*run_options.FIELDS, *(field.name for field in dataclasses.fields(Options))} - {"repeats"}


@dataclass(frozen=True)
class RunRequest:
    """What to run, in which order, and how."""

    trials: list[Trial]
    options: Options
    run_options: RunOptions
    gpus: int
    axes: list[str]
    """The fields with several values, which the titles of trials name."""
    skip_over_limit: bool
    study: Study | None


@dataclass(frozen=True)
class AllOptions:
    """The options that --help lists."""

    trial: Annotated[Trial, FlagConversionOff]
    options: Options = field(default_factory=Options)
    run_options: RunOptions = field(default_factory=RunOptions)


def read(words: Sequence[str]) -> RunRequest:
    """Read experiments or one study file, then options, which replace the file's.

    Raises UsageError if a word is unknown, a value impossible, or two options contradict each other.
    """
    names, rest = split_names(words)
    study = None
    if names[0].endswith(".toml"):
        study = study_file.read(Path(names[0]))
        study, rest = override(study, rest)
        names = list(study.experiments)
    if {"-h", "--help"} & set(rest):
        show_help(names[0])
    check_options(rest)  # before tyro, which would allow an option twice and knows no --arm or --device
    how, rest = take_run_options(rest, f"python -m launch run {names[0]}")
    arms, rest = take_option(rest, "--arm")
    gpus, rest = limits.take_device(rest)  # first, because --memory-limit auto reads a GPU's memory
    skip, rest = limits.take_flag(limits.in_bytes(rest, gpus), limits.SKIP)
    _, rest = limits.take_flag(rest, "--no-skip-over-limit")  # only there to override a study's
    trials: dict[Trial, None] = {}
    for name, own_arms in arms_by_experiment(names, arms).items():
        own_trials, options = matrix.trials(name, own_arms, rest)
        trials |= dict.fromkeys(own_trials)
    if how.retry_failed and not options.resume:
        raise UsageError("--retry-failed needs --resume")
    ordered, axes = list(trials), option_words.axes(rest)
    if "target_accuracy" in axes and not all(trial.stop_at_target for trial in ordered):
        raise UsageError(
            "--target-accuracy has several values, for which a trial trains alike; give one, and ask for others with "
            "python -m reports show RUN --target-accuracy"
        )
    if "repeat" not in option_words.fields(rest):
        ordered = matrix.repeated(ordered, how.repeats, how.order)
        axes += ["repeat"] if how.repeats > 1 else []
    return RunRequest(ordered, options, how, gpus, axes, skip, study)


def split_names(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(experiments or a study file, the options behind them with dashes in their names)."""
    end = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    names, rest = list(words[:end]), list(words[end:])
    if not names and "preset" in option_words.fields(rest):
        names = experiments.names()
    if not names:
        choose = ", ".join(experiments.names())
        raise UsageError(f"run needs an experiment or a study file first; choose from: {choose}; or see studies/")
    files = [name for name in names if name.endswith(".toml")]
    if files and len(names) > 1:
        raise UsageError(f"the study file {files[0]} names its experiments itself; give it alone, options after it")
    return own_file.absolute(names), [class_folders.absolute(option_words.dashed(word)) for word in rest]


def override(study: Study, words: Sequence[str]) -> tuple[Study, list[str]]:
    """(the study with a note of what the command line replaces in it, the options of both)."""
    given = set(option_words.fields(words))
    own = option_words.select(study.words, set(option_words.fields(study.words)) - given)
    replaced = option_words.select(words, given - TRIAL_NEUTRAL)
    return dataclasses.replace(study, replaced=tuple(replaced)), [*own, *words]


def check_options(words: Sequence[str]) -> None:
    """Raises UsageError if an option does not exist, is given twice, or contradicts another."""
    known = option_words.kinds()
    seen = set()
    for option, values in option_words.grouped(words):
        name = option_words.field_of(option)
        if name not in known:
            next_move = option_words.suggestion(option, map(spelling, known))
            raise UsageError(f"run has no option {option or values[0]!r}; {next_move}")
        if name in seen:
            raise UsageError(f"{option} is given more than once; give it once, several values with commas between")
        seen.add(name)
    if {"repeat", "repeats"} <= seen:
        raise UsageError("--repeats makes the repeats 0, 1, ... itself; leave --repeat out")
    if "machines" in option_words.axes(words):
        raise UsageError("--machines takes one value, since each machine runs a command of its own; give one")


def take_run_options(words: Sequence[str], prog: str) -> tuple[RunOptions, list[str]]:
    """(how the sweep is run, the other words)."""
    others = set(option_words.fields(words)) - run_options.FIELDS
    how = parse(RunOptions(), option_words.select(words, run_options.FIELDS), prog, "How the trials are run.")
    return how, option_words.select(words, others)


def arms_by_experiment(names: Sequence[str], arms: str | None) -> dict[str, str | None]:
    """Experiment -> those of the arms A,B that it has; None: all.

    Raises UsageError if an arm is in none of the experiments, or an experiment has none of the arms.
    """
    if arms is None:
        return dict.fromkeys(names)
    own = {name: experiments.load(name).arms for name in names}
    chosen = {name: [arm for arm in arms.split(",") if arm in own[name]] for name in names}
    for arm in arms.split(","):
        if not any(arm in arms_of_one for arms_of_one in own.values()):
            choose = ", ".join(dict.fromkeys(arm for arms_of_one in own.values() for arm in arms_of_one))
            raise UsageError(f"no arm {arm!r} in {' or '.join(own)}; choose from: {choose}")
    for name, arms_of_one in chosen.items():
        if not arms_of_one:
            choose = ", ".join(own[name])
            raise UsageError(f"{name} has no arm {arms!r}; leave it out or choose one of its own too: {choose}")
    return {name: ",".join(arms_of_one) for name, arms_of_one in chosen.items()}


def show_help(name: str) -> None:
    """Print all options, with this experiment's own settings as defaults, and exit."""
    experiment = experiments.load(name)
    arms = list(experiment.arms)
    about = f"{experiment.question} Arms (--arm A,B; default all): {', '.join(arms)}. "
    about += "--device and --memory-limit: see run --help."
    parse(AllOptions(experiment.trial(name, arms[0])), ["--help"], f"python -m launch run {name}", about)
