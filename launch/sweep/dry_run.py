"""`python -m launch run ... --dry-run`: what would be started, as a script to read or to run. Imports no torch."""

from __future__ import annotations

import shlex

from launch.group.accelerate_command import NodeAddress, accelerate_command
from launch.multi_node.address import unresolved_node_address
from launch.sweep import estimate, matrix, study_folder
from launch.sweep.request import RunRequest


def show(request: RunRequest) -> None:
    """Print a comment and a command for each trial, then the time they may take. Starts and writes nothing."""
    options, run_options = request.options, request.run_options
    rows = study_folder.read_rows(options.out)
    finished = study_folder.finished(rows, run_options.retry_failed)
    estimator, useful_rows = estimate.from_rows(rows, request.gpus)
    node = unresolved_node_address(run_options) if request.trials[0].machines > 1 else NodeAddress()
    estimates: list[float | None] = []
    for title, trial in matrix.titled(request.trials, dict.fromkeys([*request.axes, "repeat"])):
        has_row = study_folder.identity(trial) in finished
        if has_row and options.resume:
            print(f"# {title}: has its row, so --resume leaves it out")
            continue
        seconds = estimator.seconds(trial)
        estimates.append(seconds)
        title += f", about {estimate.duration(seconds)}" if seconds is not None else ""
        print(f"# {title}" + ("; has a row, so --resume would leave it out" if has_row else ""))
        variables, command = accelerate_command(trial, options, request.gpus, node)
        print(*(f"{name}={shlex.quote(value)}" for name, value in variables.items()), shlex.join(command))
    total = estimate.summary(estimates, useful_rows, run_options.parallel)
    print(f"# {total}" if estimates else "# nothing is left to run")
