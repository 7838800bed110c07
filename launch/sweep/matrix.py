"""From options to trials: an experiment's arms times every axis that lists several values, and their order."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from bench import experiments
from bench.errors import UsageError
from bench.options import Options, TrialRequest, parse_request, take_option
from bench.trial import Trial


def trials(name: str, arms: str | None, words: Sequence[str]) -> tuple[list[Trial], Options]:
    """All trials of one experiment, the arms outermost, each once; and what they share.

    `--precision no,bf16` is an axis of two values. Fields that are lists themselves take their parts apart by spaces
    (`--classes 0 1 2`) and are no axes. `--preset mini` starts from the arms' miniatures. UsageError: something is
    unknown or cannot be.
    """
    experiment = experiments.load(name)
    preset, words = take_option(words, "--preset")
    found: dict[Trial, None] = {}
    options = Options()
    description = f"{experiment.question} Arms (--arm A,B; default all): {', '.join(experiment.arms)}."
    for arm in arms.split(",") if arms is not None else experiment.arms:
        default = TrialRequest(experiment.trial(name, arm, preset or "full"))
        for combination in combinations(words):
            request = parse_request(default, combination, f"python -m launch run {name}", description)
            found[request.trial] = None
            options = request.options
    return list(found), options


def one_experiment(words: Sequence[str], command: str) -> tuple[str, list[str]]:
    """(the experiment, the words behind it). Raises UsageError if there is none."""
    if not words or words[0].startswith("-"):
        raise UsageError(f"{command} needs an experiment first; choose from: {', '.join(experiments.names())}")
    return words[0], list(words[1:])


def combinations(words: Sequence[str]) -> list[list[str]]:
    """The command lines, one for each combination of the axes' values."""
    choices: list[list[list[str]]] = []
    for option, values in grouped(words):
        scalar = field_of(option) in scalar_fields()
        if scalar and not values:
            raise UsageError(f"{option} has no value; give one, or several such as a,b")
        if scalar and len(values) == 1:
            if not all(values[0].split(",")):
                raise UsageError(f"{option} has an empty value in {values[0]!r}; give values such as a,b")
            choices.append([[option, value] for value in values[0].split(",")])
        else:
            choices.append([[option, *values] if option else values])
    return [list(itertools.chain.from_iterable(picked)) for picked in itertools.product(*choices)]


def grouped(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Options with the words that follow them; words before any option stand under ""."""
    groups: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            groups.append((option, [value] if equals else []))
        elif groups:
            groups[-1][1].append(word)
        else:
            groups.append(("", [word]))
    return groups


def field_of(option: str) -> str:
    """The name of the field that an option sets, however it is spelled."""
    return option.removeprefix("--").replace("-", "_")


def scalar_fields() -> set[str]:
    """Fields of Trial that hold one value."""
    return {field.name for field in dataclasses.fields(Trial) if not str(field.type).startswith("tuple")}


def axes(words: Sequence[str]) -> list[str]:
    """Names of the fields that several values were given for."""
    given = ((field_of(option), values) for option, values in grouped(words))
    return [field for field, values in given if field in scalar_fields() and any("," in value for value in values)]


def repeated(found: Sequence[Trial], repeats: int, order: str) -> list[Trial]:
    """Each trial `repeats` times, as repeat 0, 1, ...

    interleaved: all of repeat 0, then all of repeat 1 in reverse (A B B A), so that a machine that grows slower does so
    for all alike; sequential: all repeats of a trial, then the next.
    """
    if order == "sequential":
        return [dataclasses.replace(trial, repeat=repeat) for trial in found for repeat in range(repeats)]
    rounds = [[dataclasses.replace(trial, repeat=repeat) for trial in found] for repeat in range(repeats)]
    return [trial for repeat, trials in enumerate(rounds) for trial in (trials[::-1] if repeat % 2 else trials)]
