"""The command line of one trial, where every field of Trial is an option. Imports no torch before the trial starts."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import experiments, own_file
from bench.arguments import Parser
from bench.entry import guarded, imports_that_stay
from bench.errors import UsageError
from bench.experiment import Experiment
from bench.variables import LAUNCH_ID, new_id

if TYPE_CHECKING:  # what imports other packages is imported inside `guarded`
    from bench.options import TrialRequest


def main(file: str) -> None:
    """Run one trial of the experiment in `file`, under `accelerate launch -m` or as a single process.

    With --trial-key, which a launcher gives, it has to be the trial of that key.
    """
    with guarded(in_log=LAUNCH_ID in os.environ):
        from bench.record import experiment_trackers

        name = own_file.name_or_path(file)
        experiment = experiments.load(name)
        own, words = own_options(name, sys.argv[1:])
        request = read_request(name, experiment, own.arm, words, own.preset or "full")
        experiment_trackers.check(request.options.log_with)
        if own.trial_key not in (None, request.trial.key()):
            changed = f"{file}, or the folder of --data, has changed since then"
            raise UsageError(
                f"the sweep asked for trial {own.trial_key}, and this is {request.trial.key()}: {changed}; start anew"
            )
        with imports_that_stay():
            from bench.worker import run
        launch_id = os.environ.get(LAUNCH_ID) or _common_id()
        run(request.trial, request.options, experiment, launch_id)


def own_options(name: str, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(trial_key, arm and preset, None unless they are given; the other words, which are options of tyro's)."""
    parser = Parser(prog_of(name), add_help=False)
    for option in ("--trial-key", "--arm", "--preset"):
        parser.add_argument(option)
    return parser.parse_known_args(words)


def read_request(
    name: str, experiment: Experiment, arm: str | None, words: Sequence[str], preset: str = "full"
) -> TrialRequest:
    """The arm's trial with these options applied. Processes and precision default to those of Accelerate's launcher."""
    from bench.options import TrialRequest, parse_request

    if arm is None and not {"-h", "--help"} & set(words):
        raise UsageError(f"{name} needs --arm; choose from: {', '.join(experiment.arms)}")
    base = experiment.trial(name, arm or next(iter(experiment.arms)), preset)
    by_accelerate: dict[str, Any] = {
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "precision": os.environ.get("ACCELERATE_MIXED_PRECISION", base.precision),
    }
    default = TrialRequest(dataclasses.replace(base, **by_accelerate))
    description = f"{experiment.question} Arms (--arm): {', '.join(experiment.arms)}. Presets (--preset): full, mini."
    return parse_request(default, words, prog_of(name), description)


def prog_of(name: str) -> str:
    """The command that runs a trial of this experiment by hand."""
    return f"python -m bench.cli {name}" if own_file.is_path(name) else f"python -m bench.experiments.{name}"


def _common_id() -> str:
    """A launch id for a trial that was started by hand: equal on all its ranks, different for every launch."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return new_id()
    launcher = os.getppid()  # the ranks' common parent
    # When it started, in clock ticks since the machine did (proc_pid_stat(5)). By the wall clock, which may be set
    # between two ranks' readings, they could differ.
    stat = Path(f"/proc/{launcher}/stat").read_text(encoding="utf-8", errors="replace")
    started = stat.rpartition(")")[2].split()[19]
    return new_id(uuid.uuid5(uuid.NAMESPACE_OID, f"{uuid.getnode()} {launcher} {started}"))


if __name__ == "__main__":
    main(sys.argv.pop(1) if len(sys.argv) > 1 else "")
