"""The options of `python -m launch run`, declared in groups, for it and for the commands that take them too."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import types
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from bench import experiments, own_file
from bench.arguments import HELP_ALL, Parser, Switch, Words
from bench.experiment import PRESETS
from bench.fields import texts
from bench.options import Options
from bench.options import choices as values_of
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
# What --help lists of them, for `run` and for a command that takes them besides its own; --help-all lists all.
COMMON = ("arm", "preset", "repeats", "dry_run", "memory_limit", "out", "resume")
COMMON_ELSEWHERE = ("arm", "preset", "out")
EXPERIMENT = """a name of python -m launch list, or the path of an experiment's file of your own, such as ./mine.py
(docs/extending.md)"""
# Settings that --repeats and --memory-limit make: those of a trial that is started by hand, here in no help.
SET_BY_LAUNCHER = ("repeat", "memory_limit_bytes")
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
DEFAULTS |= {"limit_train": "all", "limit_eval": "all", "limit_windows": "all", "timeout": "no limit"}
DEFAULTS |= {"eval_batch": "--micro-batch", "lr_batch": "not scaled"}
METAVARS = {"arm": "A,B", "memory_limit": "LIMIT", "reserve": "BYTES", "rendezvous": "HOST:PORT", "data": "NAME"}
METAVARS |= {"model": "NAME", "weights": "NAME|PATH", "timeout": "S", "stall_timeout": "S", "join_timeout": "S"}
WIDEST = 60  # choices that are longer stand behind the text of an option, not behind its name
METAVARS |= {"memory_limit_bytes": "BYTES", "bucket_mib": "MIB"}


def experiments_argument(parser: Parser, several: bool = True) -> None:
    """Declare EXPERIMENT. With several, there may be none: a preset alone means all of them."""
    action = parser.add_argument("experiment", metavar="EXPERIMENT", nargs="*" if several else None, help=EXPERIMENT)
    action.suggested = experiments.names()  # type: ignore[attr-defined]


def run_options(
    parser: Parser,
    hidden: Collection[str] = (),
    out: str | None = None,
    common: Collection[str] = COMMON_ELSEWHERE,
    out_help: str = "",
) -> None:
    """Declare all options of `run`. `hidden`: those that are refused. `out`: another default of --out.

    `common`: those that --help lists. `out_help`: what --out is, if it is not what it is for run.
    """
    for title, names in GROUPS.items():
        options(parser.add_argument_group(title), names)
        parser.rare |= {*names} - {*common}
    settings(parser)
    for action in parser._actions:
        if action.dest in hidden:
            action.help = argparse.SUPPRESS
        if action.dest == "out" and out is not None:
            action.shown = out  # type: ignore[attr-defined]
            action.help = out_help or action.help


def one_trial(parser: Parser) -> None:
    """Declare the options of a command that asks what fits a device."""
    options(parser.add_argument_group(WHICH), ("arm", "preset"))
    options(memory := parser.add_argument_group(MEMORY), ("device", "memory_limit", "reserve"))
    for action in memory._group_actions:
        if action.dest == "memory_limit":
            action.required, action.shown = True, "none; give one"  # type: ignore[attr-defined]
    options(parser.add_argument_group(FOLDER), ("out", "data_root"))
    parser.rare |= {"reserve", "data_root"}
    settings(parser)


def settings(parser: Parser) -> None:
    """Declare the settings of a trial, for --help-all alone, which shows the values of the EXPERIMENT before it."""
    names = list(filter(is_setting, kinds()))
    options(parser.add_argument_group(SETTINGS, AXES), names)
    parser.rare |= {*names}
    for action in parser._actions:
        if action.dest in SET_BY_LAUNCHER:
            action.help = argparse.SUPPRESS
    parser.add_argument(HELP_ALL, action="help", help="show all options, and the settings of a trial")
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
        found = choices(name, kind)
        listed = f" Choose from: {', '.join(found)}." if len(",".join(found)) > WIDEST else ""
        how: dict[str, Any] = {"help": (said[name] + listed).replace("%", "%%") + " (default: %(shown)s)"}
        if kind is bool and name not in SEVERAL:
            action = group.add_argument(spelling(name), action=Switch, **how)
            action.shown = "on" if defaults[name] else "off"
        else:
            how["nargs"] = "*" if get_origin(kind) is tuple else "?" if kind is bool else None
            how["metavar"] = metavar(name, kind)
            action = group.add_argument(spelling(name), action=Words, **how)
            action.shown, action.suggested = shown(defaults.get(name)), found
            if name == "arm":
                action.move = "python -m launch list names the arms of each experiment"


def choices(name: str, kind: Any) -> tuple[str, ...]:
    """The values that an option can have, if they are few; of an axis, each of several."""
    return CHOICES[name] if name in CHOICES else values_of(kind)


def metavar(name: str, kind: Any) -> str:
    """What stands for an option's value in its help."""
    if len(found := ",".join(choices(name, kind))) <= WIDEST and found:
        return "{%s}" % found
    if name in METAVARS:
        return METAVARS[name]
    if get_origin(kind) is tuple or get_origin(kind) in (Union, types.UnionType):
        kind = get_args(kind)[0]
    return {int: "N", float: "X", Path: "FOLDER"}.get(kind, "NAME")


def shown(value: Any) -> str:
    """A default, as the help shows it."""
    return "none" if value in ((), "", None) else " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def show_own_settings(parser: Parser, parsed: argparse.Namespace) -> None:
    """Put the question, the arms and the settings of the experiment that is named in place of the description.

    Settings of its first arm become the defaults.
    """
    names = [parsed.experiment] if isinstance(parsed.experiment, str) else parsed.experiment or []
    if not names or names[0].endswith(".toml"):
        return
    (name,) = own_file.absolute(names[:1])
    experiment = experiments.load(name)
    trials = {arm: experiment.trial(name, arm, parsed.preset or "full") for arm in experiment.arms}
    arm, trial = next(iter(trials.items()))
    arms = f"Arms: {', '.join(trials)}."
    parser.in_short = "\n\n".join([experiment.question, arms, own_settings(list(trials.values()))])
    parser.description = f"{experiment.question}\n\n{arms} Defaults below: {arm}."
    for action in parser._actions:
        if is_setting(action.dest):
            value = getattr(trial, action.dest)
            action.shown = shown(DEFAULTS.get(action.dest) if value is None else value)  # type: ignore[attr-defined]
        if action.dest == "experiment":
            action.metavar, action.nargs, action.help = names[0], None, argparse.SUPPRESS


def own_settings(trials: Sequence[Trial]) -> str:
    """The settings that an experiment has itself, with their values, and those in which its arms differ."""
    names, usual = list(filter(is_setting, kinds())), Trial()
    differing = [name for name in names if len({getattr(trial, name) for trial in trials}) > 1]
    alike = {name: getattr(trials[0], name) for name in names if name not in differing}
    own = [f"{spelling(name)} {shown(value)}" for name, value in alike.items() if value != getattr(usual, name)]
    by_arm = f"; by arm: {', '.join(map(spelling, differing))}" if differing else ""
    return f"It sets: {', '.join(own) or 'nothing'}{by_arm}."
