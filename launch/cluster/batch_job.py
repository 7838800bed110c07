"""What a Slurm script and a Kubernetes manifest share: the words of `launch run` that every machine starts with."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.arguments import Parser
from bench.arguments import at_least as number_from
from bench.errors import UsageError
from bench.fields import texts
from bench.options import Options
from bench.trial import Trial, check_device_settings, option
from launch.sweep import arguments as declared
from launch.sweep import option_words, request, study_file

# Options that the scheduler's script sets: their values are known only once a machine starts.
FROM_SCHEDULER = ("machines", "machine_rank", "rendezvous")
SchedulerOptions = TypeVar("SchedulerOptions")


@dataclass(frozen=True)
class RunCommand:
    """`words`: for `launch run` on every machine, without FROM_SCHEDULER. `trials`, `options`: what they mean."""

    words: tuple[str, ...]
    trials: tuple[Trial, ...]
    options: Options

    def processes_per_node(self) -> int:
        """The largest number that a trial has on one machine."""
        return max(trial.processes // trial.machines for trial in self.trials)


def arguments(parser: Parser, kind: type, title: str, out: str | None = None) -> None:
    """Declare an option for each field of this dataclass, and then those of `run`. `out`: the default of --out."""
    declared.experiments_argument(parser)
    group, said = parser.add_argument_group(title), texts(kind)
    for field in dataclasses.fields(kind):
        needed = field.default is dataclasses.MISSING
        is_whole = "int" in str(field.type)
        shown = "" if needed else " (default: %(default)s)" if field.default is not None else ""
        group.add_argument(
            option(field.name),
            type=number_from(0) if is_whole else str,
            required=needed,
            default=None if needed else field.default,
            metavar="N" if is_whole else field.name.upper(),
            help=said[field.name] + shown,
        )
    declared.run_options(parser, FROM_SCHEDULER, out)


def of(kind: type[SchedulerOptions], options: argparse.Namespace) -> SchedulerOptions:
    """The options that are fields of this dataclass. Raises UsageError if one is wrong."""
    return kind(**{field.name: getattr(options, field.name) for field in dataclasses.fields(kind)})  # type: ignore[arg-type]


def at_least(options: Any, **least: int | None) -> None:
    """Raises UsageError if a field is below its least value."""
    for name, number in least.items():
        value = getattr(options, name)
        if value is not None and number is not None and value < number:
            raise UsageError(f"{option(name)} is {value}; give {number} or more")


def spelled(options: Any, **patterns: tuple[str, str]) -> None:
    """Raises UsageError if the text of a field does not match its (regular expression, example)."""
    for name, (pattern, example) in patterns.items():
        value = getattr(options, name)
        if value is not None and not re.fullmatch(pattern, value):
            raise UsageError(f"{option(name)} is {value!r}; give such as {example}")


def run_command(words: Sequence[str], nodes: int, gpus_per_node: int) -> RunCommand:
    """`launch run` with these words on so many machines, one process per GPU unless --processes is given.

    Raises UsageError for all that `launch run` would refuse: better now than after hours in a queue.
    """
    if unprintable := [word for word in words if not word.isprintable()]:
        raise UsageError(f"{unprintable[0]!r} has a character that cannot be printed; leave it out")
    names, rest = request.split_names(words)
    own = study_file.read(Path(names[0])).words if names[0].endswith(".toml") else ()
    if taken := [name for name in FROM_SCHEDULER if name in option_words.fields([*own, *rest])]:
        raise UsageError(f"{option(taken[0])} comes from --nodes here; leave it out")
    if "--no-resume" in rest:
        raise UsageError("--no-resume would start from the beginning when a machine is lost; leave it out")
    fields_given, more = option_words.fields([*own, *rest]), []
    if nodes > 1:
        more += ["--machines", str(nodes)]
    if gpus_per_node and "processes" not in fields_given:
        more += ["--processes", str(nodes * gpus_per_node)]
    if "device" not in fields_given:  # explicit, so that a machine without a working GPU fails and does not use its CPU
        more += ["--device", "cuda" if gpus_per_node else "cpu"]
    more += [] if "--resume" in rest else ["--resume"]  # the same command runs again after a requeue or a restart
    device = option_words.value([*rest, *more], "device") or option_words.value(own, "device")
    run_request = read(names, [*rest, *more])
    result = RunCommand((*names, *rest, *more), tuple(run_request.trials), run_request.options)
    if device != "cpu" and gpus_per_node and result.processes_per_node() > gpus_per_node:
        most = max(trial.processes for trial in result.trials)
        raise UsageError(f"--processes is {most}; {nodes} x {gpus_per_node} GPUs take {nodes * gpus_per_node} at most")
    if device == "cpu" and any(trial.precision == "fp16" for trial in result.trials):
        raise UsageError("--precision fp16 needs GPUs; give --gpus-per-node, or use bf16 or no")
    for trial in result.trials if device == "cpu" else ():
        check_device_settings(trial)
    return result


def read(names: Sequence[str], options: Sequence[str]) -> request.RunRequest:
    """Read the request as if for a CPU: a GPU that it needs is on the machines of the cluster, not here."""
    return request.read([*names, *option_words.without(options, {"device"}), "--device", "cpu"])


def with_out(words: Sequence[str], out: str) -> tuple[str, ...]:
    """The words with this run folder as --out."""
    return (*option_words.without(words, {"out"}), "--out", out)
