"""From options to trials: an experiment's arms x every axis (an option with several values), and their order."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from bench import experiments
from bench.errors import UsageError
from bench.options import Options, TrialRequest, next_move, parse_request, spelled_out
from bench.trial import DATA, FOLDER, Trial
from launch.sweep.option_words import TRIAL_TYPES, field_of, grouped, is_scalar


def trials(name: str, arms: str | None, words: Sequence[str], preset: str | None = None) -> tuple[list[Trial], Options]:
    """All trials of one experiment, the arms outermost, each once; and the options that they share.

    `--precision no,bf16` is an axis of two values. The values of fields that are lists themselves stand apart
    (`--classes 0 1 2`), so those fields are no axes. The preset "mini" starts from the arms' miniatures.

    Raises UsageError if a name is unknown or a value impossible.
    """
    experiment = experiments.load(name)
    combined: dict[Trial, None] = {}
    options = Options()
    description = f"{experiment.question} Arms (--arm A,B; default all): {', '.join(experiment.arms)}."
    for arm in arms.split(",") if arms is not None else experiment.arms:
        default = TrialRequest(experiment.trial(name, arm, preset or "full"))
        for combination in combinations(words):
            request = parse_request(default, combination, f"python -m launch run {name}", description)
            combined[request.trial] = None
            options = request.options
    return list(combined), options


def combinations(words: Sequence[str]) -> list[list[str]]:
    """The words of one trial each: one value of every axis."""
    choices: list[list[list[str]]] = []
    for option, values in grouped(spelled_out(words)):
        scalar = is_scalar(field_of(option))
        if scalar and not values:
            raise UsageError(f"{option} has no value; give one, or several such as a,b")
        if scalar and len(values) == 1:
            if not values[0]:
                raise UsageError(f"{option} is empty; {what_to_give(field_of(option))}")
            if not all(values[0].split(",")):
                raise UsageError(f"{option} has an empty value in {values[0]!r}; give values such as a,b")
            choices.append([[option, value] for value in values[0].split(",")])
        else:
            choices.append([[option, *values] if option else values])
    return [list(itertools.chain.from_iterable(combination)) for combination in itertools.product(*choices)]


def what_to_give(field: str) -> str:
    """The next move for a setting that has no value."""
    return f"choose from: {', '.join(DATA)}, {FOLDER}PATH" if field == "data" else next_move(TRIAL_TYPES[field])


def repeated(trials: Sequence[Trial], repeats: int, order: str) -> list[Trial]:
    """Each trial `repeats` times, as repeat 0, 1, ...

    interleaved: all of repeat 0, then all of repeat 1 in reverse (A B B A), so that a machine that slows down does so
    equally for all; sequential: all repeats of a trial, then the next.
    """
    if order == "sequential":
        return [dataclasses.replace(trial, repeat=repeat) for trial in trials for repeat in range(repeats)]
    rounds = [[dataclasses.replace(trial, repeat=repeat) for trial in trials] for repeat in range(repeats)]
    return [trial for repeat, round_ in enumerate(rounds) for trial in (round_[::-1] if repeat % 2 else round_)]


def titled(trials: Sequence[Trial], axes: Iterable[str]) -> list[tuple[str, Trial]]:
    """Each trial with a title: [2/6] resnet20_accumulation 16x8 precision=bf16."""
    result = []
    for number, trial in enumerate(trials, 1):
        values = "".join(f" {name}={getattr(trial, name)}" for name in axes)
        result.append((f"[{number}/{len(trials)}] {trial.experiment} {trial.arm}{values}", trial))
    return result
