"""What is refused before the first trial starts: trials that this machine cannot run, options that contradict."""

from __future__ import annotations

from collections.abc import Collection

from bench.errors import UsageError
from bench.record import experiment_trackers
from launch.group import accelerate_command
from launch.memory import limits
from launch.multi_node.address import parse_endpoint
from launch.run_options import RunOptions
from launch.sweep.request import RunRequest
from models import ModelError, names


def check(request: RunRequest) -> None:
    """Raises UsageError if one of the trials cannot run here."""
    if request.run_options.parallel > 1 and request.gpus < 2:
        what = f"{request.gpus} GPU" if request.gpus else "no GPU to use"
        raise UsageError(
            f"--parallel is {request.run_options.parallel} but this machine has {what}; trials that share a device "
            f"would measure each other: leave --parallel out"
        )
    experiment_trackers.check(request.options.log_with)
    check_machines(request.trials[0].machines, request.run_options)
    check_timm({(trial.model, trial.weights) for trial in request.trials if names.is_timm(trial.model)})
    for trial in request.trials:
        accelerate_command.check(trial, request.gpus)
        if request.skip_over_limit and trial.compile != "none":
            raise UsageError(f"{limits.SKIP} cannot predict --compile {trial.compile}; leave one of them out")
        if request.skip_over_limit and trial.memory_limit_bytes is None:
            raise UsageError(f"{limits.SKIP} needs a limit; give --memory-limit too")


def check_timm(asked: Collection[tuple[str, str]]) -> None:
    """Raises UsageError if timm has not all of these (model, weights). Imports timm, and torch, if there are any."""
    if not asked:
        return
    from models import from_timm

    try:
        for model, weights in asked:
            from_timm.check(model, weights)
    except ModelError as error:
        raise UsageError(str(error)) from error


def check_machines(machines: int, options: RunOptions) -> None:
    """Raises UsageError if the options for several machines do not go together."""
    if machines == 1:
        if options.rendezvous or options.machine_rank:
            raise UsageError("--machine-rank and --rendezvous are for several machines; give --machines too")
        return
    if not options.rendezvous:
        raise UsageError(f"--machines is {machines}; give --rendezvous HOST:PORT, the address of machine 0")
    parse_endpoint(options.rendezvous)
    if options.machine_rank >= machines:
        raise UsageError(f"--machine-rank is {options.machine_rank} of --machines {machines}; give 0 to {machines - 1}")
    if options.parallel > 1:
        raise UsageError("--parallel is for one machine; leave it out, or --machines")
