"""What a batch script and a manifest share: the words of `launch run` that a study is started with on every machine."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import UsageError
from bench.options import Options, take_option
from bench.trial import Trial, check_device_settings, option
from launch.sweep import request, study_file

# What the scheduler knows, and each machine is told when it starts.
OURS = ("--machines", "--machine-rank", "--rendezvous")
Asked = TypeVar("Asked")


@dataclass(frozen=True)
class Study:
    """The words of `launch run` for every machine, without what only a started machine knows; and what they ask for."""

    words: tuple[str, ...]
    trials: tuple[Trial, ...]
    options: Options

    def processes_per_node(self) -> int:
        """The most that a trial has on one machine."""
        return max(trial.processes // trial.machines for trial in self.trials)


def take(kind: type[Asked], words: Sequence[str]) -> tuple[Asked, list[str]]:
    """The options that are fields of this dataclass, numbers or text, and the other words."""
    rest, given = list(words), {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        text, rest = take_option(rest, option(field.name))
        if text is not None:
            given[field.name] = whole(option(field.name), text) if "int" in str(field.type) else text
    return kind(**given), rest


def whole(name: str, text: str) -> int:
    """The number. UsageError: it is none."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"{name} is {text!r}; give a whole number")
    return int(text)


def at_least(asked: Any, **least: int | None) -> None:
    """UsageError: a field is below this."""
    for name, number in least.items():
        value = getattr(asked, name)
        if value is not None and number is not None and value < number:
            raise UsageError(f"{option(name)} is {value}; give {number} or more")


def spelled(asked: Any, **patterns: tuple[str, str]) -> None:
    """UsageError: the text of a field does not match its (regular expression, example)."""
    for name, (pattern, example) in patterns.items():
        value = getattr(asked, name)
        if value is not None and not re.fullmatch(pattern, value):
            raise UsageError(f"{option(name)} is {value!r}; give such as {example}")


def study(words: Sequence[str], nodes: int, gpus_per_node: int) -> Study:
    """The study on so many machines, as many processes as GPUs unless --processes says otherwise.

    UsageError: what `launch run` would refuse on any machine, before anything waits in a queue for that.
    """
    if odd := [word for word in words if not word.isprintable()]:
        raise UsageError(f"{odd[0]!r} has a character that cannot be printed; leave it out")
    names, rest = request.split(words)
    own = study_file.read(Path(names[0])).words if names[0].endswith(".toml") else ()
    if taken := [name for name in OURS if name[2:].replace("-", "_") in request.fields([*own, *rest])]:
        raise UsageError(f"{taken[0]} comes from --nodes here; leave it out")
    if "--no-resume" in rest:
        raise UsageError("--no-resume would begin again whenever a machine is lost; leave it out")
    given, more = request.fields([*own, *rest]), []
    if nodes > 1:
        more += ["--machines", str(nodes)]
    if gpus_per_node and "processes" not in given:
        more += ["--processes", str(nodes * gpus_per_node)]
    if "device" not in given:  # never the CPU because a GPU was not found, nor a GPU that was not asked for
        more += ["--device", "cuda" if gpus_per_node else "cpu"]
    more += [] if "--resume" in rest else ["--resume"]
    device = take_option([*rest, *more], "--device")[0] or take_option(own, "--device")[0]
    asked = read(names, [*rest, *more])
    found = Study((*names, *rest, *more), tuple(asked.trials), asked.options)
    if device != "cpu" and gpus_per_node and found.processes_per_node() > gpus_per_node:
        most = max(trial.processes for trial in found.trials)
        raise UsageError(f"--processes is {most}; {nodes} x {gpus_per_node} GPUs take {nodes * gpus_per_node} at most")
    if device == "cpu" and any(trial.precision == "fp16" for trial in found.trials):
        raise UsageError("--precision fp16 needs GPUs; give --gpus-per-node, or use bf16 or no")
    for trial in found.trials if device == "cpu" else ():
        check_device_settings(trial)
    return found


def read(names: Sequence[str], options: Sequence[str]) -> request.RunRequest:
    """What `launch run` makes of this on a machine with whatever device: the one that waits for it need not have it."""
    _, rest = take_option(options, "--device")
    return request.read([*names, *rest, "--device", "cpu"])


def with_out(words: Sequence[str], out: str) -> tuple[str, ...]:
    """The words with this run folder in place of theirs."""
    _, rest = take_option(words, "--out")
    return (*rest, "--out", out)
