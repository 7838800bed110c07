"""The options of a launch, and how they are parsed: every field of Trial and of Options is one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import FlagConversionOff, OmitArgPrefixes, SuppressFixed

from bench import experiments
from bench.data import class_folders
from bench.errors import UsageError
from bench.trial import FIXED, FOLDER, Trial, option
from models.nearest import perhaps


@dataclass(frozen=True)
class Options:
    """What a launch needs besides its trial. None of it changes what is measured."""

    out: Path = Path("runs/latest")
    """Run folder for the CSV files. Rows are appended to an existing one."""
    data_root: Path = Path("data")
    """Folder of downloaded data sets."""
    resume: bool = False
    """Resume from the trial's checkpoint in the run folder, if there is one."""
    checkpoint: bool = True
    """Keep a checkpoint after each epoch."""
    log_with: tuple[str, ...] = ()
    """Trackers that also get each epoch's numbers, by Accelerate's names: tensorboard, wandb, ..."""
    trace: bool = False
    """Once the row is written, run one more window through torch's profiler, for traces/ in the run folder."""


@dataclass(frozen=True)
class TrialRequest:
    """One trial and its options, as a command line gives them."""

    trial: Annotated[Trial, FlagConversionOff]
    options: Options = field(default_factory=Options)


SWITCHES = {name for name, kind in get_type_hints(Trial).items() if kind is bool}


def parse(default: Any, words: Sequence[str], prog: str, description: str) -> Any:
    """Parse options into an object of the default's type. Raises UsageError with tyro's error as one sentence."""
    for word, value in itertools.pairwise([*words, "--"]):
        name, _, joined = word.partition("=")
        if name in ("--out", "--data-root") and not (joined if "=" in word else value):
            raise UsageError(f"{name} is empty, which would be the current folder; give a folder")
    check_values(type(default), words)
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            return tyro.cli(
                type(default),
                default=default,
                args=list(words),
                prog=prog,
                description=description,
                config=(OmitArgPrefixes, SuppressFixed),
            )
    except SystemExit as error:
        if not error.code:
            raise
        raise UsageError(f"{_sentence(stderr.getvalue(), _names(default))}; see {prog} --help") from error


def check_values(kind: type, words: Sequence[str]) -> None:
    """Raises UsageError for the first value that no field of this dataclass, or of those in its fields, can have."""
    kinds, name = dict(_kinds(kind)), ""
    for word in words:
        if word.startswith("--"):
            spelled, _, value = word.partition("=")
            name = spelled.removeprefix("--").replace("-", "_")
        else:
            spelled, value = option(name), word
        given = not word.startswith("--") or "=" in word
        if given and name in kinds and (move := _refused(value, kinds[name])):
            raise UsageError(f"{spelled} is {value!r}{move}")


def _kinds(kind: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass, and of those that stand in its fields, with their types."""
    for name, own in get_type_hints(kind).items():
        yield from _kinds(own) if dataclasses.is_dataclass(own) else [(name, own)]


def _refused(value: str, kind: Any) -> str:
    """How an error goes on for a value that is none of this type; empty: it may be one."""
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    if type(None) in get_args(kind):
        if value == "None":
            return ""
        kind = get_args(kind)[0]
    found = choices(kind)
    if found and value not in found:
        return f"{perhaps(value, found)}; {next_move(kind)}"
    try:
        kind(value) if kind in (int, float) else None
    except ValueError:
        return f"; {next_move(kind)}"
    return ""


def choices(kind: Any) -> tuple[str, ...]:
    """The values of a type that has few."""
    return ("True", "False") if kind is bool else get_args(kind) if get_origin(kind) is Literal else ()


def next_move(kind: Any) -> str:
    """What to do about a value that is none of this type."""
    if found := choices(kind):
        return f"choose from: {', '.join(found)}"
    return {int: "give a whole number", float: "give a number"}.get(kind, "give one")


def _sentence(box: str, known: Iterable[str]) -> str:
    """The error in the box that tyro prints, up to its first horizontal line; for an unknown option, the nearest."""
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    parts = [part.strip("─ ") for part in " ".join(lines).split("───") if part.strip("─ ")]
    text = " ".join(parts[0].split()).rstrip(".") if parts else "the options cannot be read"
    unknown = re.match(r"Unrecognized options: --([\w-]+)", text)
    return text + (perhaps(unknown[1], known, "--") if unknown else "")


def _names(default: Any) -> Iterator[str]:
    """The options of the fields of a dataclass, and of those that stand in its fields, without their dashes."""
    for each in dataclasses.fields(default):
        if each.name in FIXED:
            continue
        value = getattr(default, each.name)
        yield from _names(value) if dataclasses.is_dataclass(value) else [option(each.name).removeprefix("--")]


def parse_request(default: TrialRequest, words: Sequence[str], prog: str, description: str) -> TrialRequest:
    """As `parse`, with settings that follow from other options unless they are given themselves.

    Of `--data folder:PATH`, the trial has the absolute path, and what is there. With `--data synthetic`, the weights
    are none and no other data set is evaluated on. A shared batch is divided among `--processes`; a `--micro-batch` is
    each process's own.
    """
    words = spelled_out(words)
    request: TrialRequest = parse(default, words, prog, description)
    trial = request.trial
    names = {word.split("=")[0].replace("_", "-") for word in words}
    if folder := class_folders.of(trial):
        contents = class_folders.scan(str(folder)).contents
        trial = dataclasses.replace(trial, data=f"{FOLDER}{folder}", data_contents=contents)
    known = bool(trial.experiment_file) or trial.experiment in experiments.names()
    if known and "--micro-batch" not in names:
        trial = experiments.of(trial).shared_out(trial)
    if trial.data == "synthetic" and "--evaluate-on" not in names:
        trial = dataclasses.replace(trial, evaluate_on="none")
    # Random images show speed and memory, for which trained weights, and their download, are not needed.
    if trial.data == "synthetic" and "--weights" not in names and trial.weights == default.trial.weights != "none":
        if os.environ.get("RANK", "0") == "0":
            _print_once(f"--data synthetic: the weights are none, not {trial.weights}")
        trial = dataclasses.replace(trial, weights="none")
    return dataclasses.replace(request, trial=trial)


def spelled_out(words: Sequence[str]) -> list[str]:
    """The same words; a setting that is true or false and has no value behind it is on: --stop-at-target True."""
    found = []
    for word, behind in zip(words, [*words[1:], "--"], strict=False):
        bare = word.startswith("--") and behind.startswith("--") and word[2:].replace("-", "_") in SWITCHES
        found += [word, "True"] if bare else [word]
    return found


@functools.cache
def _print_once(text: str) -> None:
    """Print a note once, also if many trials have it."""
    print(text, file=sys.stderr)
