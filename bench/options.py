"""The options of a launch and how they are read: every field of Trial is one, and so is every field of Options."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import os
import re
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import FlagConversionOff, OmitArgPrefixes, SuppressFixed

from bench import experiments
from bench.errors import UsageError
from bench.trial import Trial


@dataclass(frozen=True)
class Options:
    """What a launch needs besides its trial: none of it changes what is measured."""

    out: Path = Path("runs/latest")
    """Run folder for the CSV files; an existing one is added to."""
    data_root: Path = Path("data")
    """Folder of downloaded data sets."""
    resume: bool = False
    """Go on from the trial's checkpoint in the run folder, where there is one."""
    checkpoint: bool = True
    """Keep a checkpoint after each epoch."""
    log_with: tuple[str, ...] = ()
    """Trackers that get each epoch's numbers too, as Accelerate names them: tensorboard, wandb, ..."""


@dataclass(frozen=True)
class TrialRequest:
    """All that a command line asks for."""

    trial: Annotated[Trial, FlagConversionOff]
    options: Options = field(default_factory=Options)


def parse(default: Any, words: Sequence[str], prog: str, description: str) -> Any:
    """Read options over a default of their own kind. UsageError: what tyro has against them, in one sentence."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
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
        raise UsageError(f"{_sentence(complaint.getvalue())}; see {prog} --help") from error


def _sentence(box: str) -> str:
    """What stands in tyro's box up to its first rule, and its suggestion."""
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    said = [part.strip("─ ") for part in " ".join(lines).split("───") if part.strip("─ ")]
    text = " ".join(said[0].split()).rstrip(".") if said else "the options cannot be read"
    suggested = [re.findall(r"--[\w-]+", part)[:1] for part in said[1:] if part.startswith("Perhaps")]
    return text + "".join(f"; perhaps you meant {name}" for (name,) in suggested)


def take_option(words: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """The value of one option and the other words."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(name, dest="values", action="append", default=[])
    try:
        known, rest = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise UsageError(f"{name} needs a value") from error
    if len(known.values) > 1:
        raise UsageError(f"{name} is given {len(known.values)} times; give it once")
    return (known.values or [None])[0], rest


def parse_request(default: TrialRequest, words: Sequence[str], prog: str, description: str) -> TrialRequest:
    """As `parse`, and what follows from an option unless another says otherwise.

    Random images need no trained weights: with `--data synthetic` they are none, and nothing else is evaluated on. An
    arm's shared batch is shared out to `--processes`; a `--micro-batch` is each process's own.
    """
    request: TrialRequest = parse(default, words, prog, description)
    given = {word.split("=")[0].replace("_", "-") for word in words}
    name = request.trial.experiment
    if name in experiments.names() and "--micro-batch" not in given:
        request = dataclasses.replace(request, trial=experiments.load(name).shared_out(request.trial))
    if request.trial.data == "synthetic" and "--evaluate-on" not in given:
        request = dataclasses.replace(request, trial=dataclasses.replace(request.trial, evaluate_on="none"))
    if request.trial.data == "synthetic" and request.trial.weights == default.trial.weights != "none":
        if "--weights" in given:
            return request
        if os.environ.get("RANK", "0") == "0":
            _say_once(f"--data synthetic: the weights are none, not {default.trial.weights}")
        request = dataclasses.replace(request, trial=dataclasses.replace(request.trial, weights="none"))
    return request


@functools.cache
def _say_once(text: str) -> None:
    """Of many trials, one is enough."""
    print(text, file=sys.stderr)


def new_id() -> str:
    """Twelve hex digits that no other launch has."""
    return uuid.uuid4().hex[:12]
