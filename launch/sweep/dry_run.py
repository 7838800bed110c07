"""`python -m launch run ... --dry-run`: what would be started, as a script to read or to run. Imports no torch."""

from __future__ import annotations

import shlex

from launch.group.accelerate_command import NodeAddress, accelerate_command
from launch.multi_node.address import unresolved_node_address
from launch.sweep import estimate, study_folder
from launch.sweep.request import RunRequest


def show(asked: RunRequest) -> None:
    """Print a comment and a command for each trial, then the time they may take. Starts and writes nothing."""
    rows = study_folder.read_rows(asked.options.out)
    done = study_folder.finished(rows, asked.run_options.retry_failed)
    estimator, known = estimate.of_rows(rows, asked.gpus)
    node = unresolved_node_address(asked.run_options) if asked.trials[0].machines > 1 else NodeAddress()
    times: list[float | None] = []
    for number, trial in enumerate(asked.trials, 1):
        title = f"# [{number}/{len(asked.trials)}] {trial.experiment} {trial.arm}"
        title += "".join(f" {name}={getattr(trial, name)}" for name in dict.fromkeys([*asked.axes, "repeat"]))
        has_row = (trial.key(), str(trial.repeat)) in done
        if has_row and asked.options.resume:
            print(f"{title}: has its row, so --resume leaves it out")
            continue
        seconds = estimator.seconds(trial)
        times.append(seconds)
        print(
            title + (f", about {estimate.lasting(seconds)}" if seconds is not None else ""),
            "; has a row, which --resume would leave at that" if has_row else "",
            sep="",
        )
        variables, command = accelerate_command(trial, asked.options, asked.gpus, node)
        print(*(f"{name}={shlex.quote(value)}" for name, value in variables.items()), shlex.join(command))
    print(f"# {estimate.in_words(times, known, asked.run_options.parallel)}" if times else "# nothing is left to run")
