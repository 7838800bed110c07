"""What one `python -m launch run` is to do, from its words and a study file among them. Imports no torch."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import experiments, own_file
from bench.arguments import Parser
from bench.data import class_folders
from bench.errors import UsageError
from bench.options import Options, parse
from bench.trial import Trial
from launch import run_options
from launch.memory import limits
from launch.run_options import RunOptions
from launch.sweep import arguments as declared
from launch.sweep import batch_note, matrix, option_words, study_file
from launch.sweep.study_file import Study
from models.nearest import perhaps

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
    note: str | None
    """What --processes does to the effective batch; None: nothing that was not asked for."""


def arguments(parser: Parser) -> None:
    """Declare what `run` takes."""
    declared.experiments_argument(parser)
    declared.run_options(parser, common=declared.COMMON)


def read(words: Sequence[str], command: str = "run") -> RunRequest:
    """Read experiments or one study file, then options, which replace the file's.

    `command`: that asks for it. Raises UsageError if a word is unknown, a value impossible, or two options contradict
    each other.
    """
    names, rest = split_names(words)
    if "--" in rest:
        raise UsageError("run has no option '--'; leave it out")
    study = None
    if names[0].endswith(".toml"):
        study = study_file.read(Path(names[0]))
        study, rest = override(study, rest)
        names = list(study.experiments)
    parser = Parser(f"python -m launch {command}")
    arguments(parser)
    given = parser.parse_args([*names, *rest])
    check_options(given)
    how = take_run_options(given.words, f"python -m launch run {names[0]}")
    gpus = limits.gpus(given.device)  # first, because --memory-limit auto reads a GPU's memory
    words = option_words.without(limits.in_bytes(given, gpus), {*option_words.OTHERS, *run_options.FIELDS})
    trials: dict[Trial, None] = {}
    for name, own_arms in arms_by_experiment(names, given.arm).items():
        own_trials, options = matrix.trials(name, own_arms, words, given.preset)
        trials |= dict.fromkeys(own_trials)
    if how.retry_failed and not options.resume:
        raise UsageError("--retry-failed needs --resume")
    ordered, axes = list(trials), option_words.axes(words)
    if "target_accuracy" in axes and not all(trial.stop_at_target for trial in ordered):
        raise UsageError(
            "--target-accuracy has several values, for which a trial trains alike; give one, and ask for others with "
            "python -m reports show RUN --target-accuracy"
        )
    if "repeat" not in given.given:
        ordered = matrix.repeated(ordered, how.repeats, how.order)
        axes += ["repeat"] if how.repeats > 1 else []
    note = batch_note.note(ordered, given.given, given.preset)
    return RunRequest(ordered, options, how, gpus, axes, bool(given.skip_over_limit), study, note)


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


def check_options(given: argparse.Namespace) -> None:
    """Raises UsageError if an option contradicts another."""
    if {"repeat", "repeats"} <= given.given:
        raise UsageError("--repeats makes the repeats 0, 1, ... itself; leave --repeat out")
    if "," in (given.machines or ""):
        raise UsageError("--machines takes one value, since each machine runs a command of its own; give one")


def take_run_options(words: Sequence[str], prog: str) -> RunOptions:
    """How the sweep is run."""
    return parse(RunOptions(), option_words.select(words, run_options.FIELDS), prog, "How the trials are run.")


def arms_by_experiment(names: Sequence[str], arms: str | None) -> dict[str, str | None]:
    """Experiment -> those of the arms A,B that it has; None: all.

    Raises UsageError if an arm is in none of the experiments, or an experiment has none of the arms.
    """
    if arms is None:
        return dict.fromkeys(names)
    own = {name: experiments.load(name).arms for name in names}
    chosen = {name: [arm for arm in arms.split(",") if arm in own[name]] for name in names}
    known = list(dict.fromkeys(arm for arms_of_one in own.values() for arm in arms_of_one))
    if not arms:
        raise UsageError(f"--arm is empty; choose from: {', '.join(known)}")
    for arm in arms.split(","):
        if arm not in known:
            near = perhaps(arm, known)
            raise UsageError(f"no arm {arm!r} in {' or '.join(own)}{near}; choose from: {', '.join(known)}")
    for name, arms_of_one in chosen.items():
        if not arms_of_one:
            choose = ", ".join(own[name])
            raise UsageError(f"{name} has no arm {arms!r}; leave it out or choose one of its own too: {choose}")
    return {name: ",".join(arms_of_one) for name, arms_of_one in chosen.items()}
