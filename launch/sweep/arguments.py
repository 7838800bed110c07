"""The options of `python -m launch run`, declared in groups, for it and for the commands that take them too."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import types
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from bench import experiments, own_file
from bench.arguments import Parser, Switch, Words
from bench.experiment import PRESETS
from bench.fields import texts
from bench.options import Options
from bench.trial import FIXED, Trial
from bench.trial import option as spelling
from launch.run_options import RunOptions
from launch.sweep.option_words import SEVERAL, kinds

WHICH = "which trials"
FOLDER = "the run folder"
MEMORY = "device and memory"
MACHINES = "several machines, with --machines"
SETTINGS = "settings of a trial"
AXES = """Several values with commas between them are an axis, one trial for each: --precision no,bf16.
The parts of a list have spaces between them: --classes 0 1 2."""
# The options of `run` besides the settings of a trial.
GROUPS = {
    WHICH: ("arm", "preset", "repeats", "order"),
    "how they run": ("dry_run", "fail_fast", "parallel", "cold", "timeout", "stall_timeout"),
    MEMORY: ("device", "memory_limit", "reserve", "skip_over_limit"),
    FOLDER: ("out", "data_root", "resume", "retry_failed", "checkpoint", "log_with", "trace"),
    MACHINES: ("machine_rank", "rendezvous", "join_timeout"),
}
EXPERIMENT = """a name of python -m launch list, or the path of a file of your own, such as ./my_study.py, that holds
what the files in bench/experiments/ hold; with its own model and data if it defines model(trial, classes) and
data(trial)"""
CHOICES = {"preset": PRESETS, "device": ("auto", "cpu", "cuda")}
TEXTS = {
    "arm": "Arms to run, with commas between them.",
    "preset": "full: the source's settings; mini: the miniature of each arm (digits, small images, minutes on two "
    "CPUs), to try out a study; of all experiments if none is named. Other options override it.",
    "device": "Where trials run; auto: on GPUs if there are any.",
    "memory_limit": "What the tensors of one process may take: bytes such as 600MiB, a device such as orin-nano-8gb, "
    "or auto (what is free here).",
    "reserve": "Bytes to subtract from the limit, in place of the device's own reserve.",
    "skip_over_limit": "Do not start a trial that is predicted not to fit its limit.",
}
DEFAULTS: dict[str, Any] = {"arm": "all", "preset": "full", "device": "auto", "memory_limit": "none"}
DEFAULTS |= {"reserve": "the device's own", "skip_over_limit": False}
METAVARS = {"arm": "A,B", "memory_limit": "LIMIT", "reserve": "BYTES", "rendezvous": "HOST:PORT", "data": "NAME"}
METAVARS |= {"model": "NAME", "weights": "NAME|PATH", "timeout": "S", "stall_timeout": "S", "join_timeout": "S"}
METAVARS |= {"memory_limit_bytes": "BYTES", "bucket_mib": "MIB"}


def experiments_argument(parser: Parser, several: bool = True) -> None:
    """Declare EXPERIMENT. With several, there may be none: a preset alone means all of them."""
    action = parser.add_argument("experiment", metavar="EXPERIMENT", nargs="*" if several else None, help=EXPERIMENT)
    action.suggested = experiments.names()  # type: ignore[attr-defined]


def run_options(parser: Parser, hidden: Collection[str] = (), out: str | None = None) -> None:
    """Declare all options of `run`. `hidden`: those that are refused. `out`: another default of --out."""
    for title, names in GROUPS.items():
        options(parser.add_argument_group(title), names)
    settings(parser)
    for action in parser._actions:
        if action.dest in hidden:
            action.help = argparse.SUPPRESS
        if action.dest == "out" and out is not None:
            action.shown = out  # type: ignore[attr-defined]


def one_trial(parser: Parser) -> None:
    """Declare the options of a command that asks what fits a device."""
    options(parser.add_argument_group(WHICH), ("arm", "preset"))
    options(memory := parser.add_argument_group(MEMORY), ("device", "memory_limit", "reserve"))
    for action in memory._group_actions:
        if action.dest == "memory_limit":
            action.required, action.shown = True, "none; give one"  # type: ignore[attr-defined]
    options(parser.add_argument_group(FOLDER), ("out", "data_root"))
    settings(parser)


def settings(parser: Parser) -> None:
    """Declare the settings of a trial. With an EXPERIMENT before --help, their defaults are those of its first arm."""
    options(parser.add_argument_group(SETTINGS, AXES), (name for name in kinds() if is_setting(name)))
    parser.before_help = functools.partial(show_own_settings, parser)


def is_setting(name: str) -> bool:
    """Whether this option is a setting of a trial, and no other option of `run`."""
    return name not in FIXED and name != "arm" and name in {field.name for field in dataclasses.fields(Trial)}


def options(group: Any, names: Iterable[str]) -> None:
    """Declare these options of `run`."""
    said = {**texts(Trial), **texts(Options), **texts(RunOptions), **TEXTS}
    defaults = {**vars(Trial()), **vars(Options()), **vars(RunOptions()), **DEFAULTS}
    for name in names:
        kind = kinds()[name]
        how: dict[str, Any] = {"help": said[name].replace("%", "%%") + " (default: %(shown)s)"}
        if kind is bool and name not in SEVERAL:
            action = group.add_argument(spelling(name), action=Switch, **how)
            action.shown = "on" if defaults[name] else "off"
        else:
            how["nargs"] = "*" if get_origin(kind) is tuple else "?" if kind is bool else None
            how["metavar"] = metavar(name, kind)
            action = group.add_argument(spelling(name), action=Words, **how)
            action.shown, action.suggested = shown(defaults.get(name)), choices(name, kind)


def choices(name: str, kind: Any) -> tuple[str, ...]:
    """The values that an option can have, if they are few; of an axis, each of several."""
    if name in CHOICES:
        return CHOICES[name]
    return ("True", "False") if kind is bool else get_args(kind) if get_origin(kind) is Literal else ()


def metavar(name: str, kind: Any) -> str:
    """What stands for an option's value in its help."""
    if found := choices(name, kind):
        return "{%s}" % ",".join(found)
    if name in METAVARS:
        return METAVARS[name]
    if get_origin(kind) is tuple or get_origin(kind) in (Union, types.UnionType):
        kind = get_args(kind)[0]
    return {int: "N", float: "X", Path: "FOLDER"}.get(kind, "NAME")


def shown(value: Any) -> str:
    """A default, as the help shows it."""
    return "none" if value in ((), "") else " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def show_own_settings(parser: Parser, parsed: argparse.Namespace) -> None:
    """Put the settings of the experiment's first arm in place of the defaults, and its question over the help."""
    names = [parsed.experiment] if isinstance(parsed.experiment, str) else parsed.experiment or []
    if not names or names[0].endswith(".toml"):
        return
    (name,) = own_file.absolute(names[:1])
    experiment = experiments.load(name)
    arm = next(iter(experiment.arms))
    trial = experiment.trial(name, arm, parsed.preset or "full")
    parser.description = f"{experiment.question}\n\nArms: {', '.join(experiment.arms)}. Defaults below: {arm}."
    for action in parser._actions:
        if is_setting(action.dest):
            action.shown = shown(getattr(trial, action.dest))  # type: ignore[attr-defined]
