"""What is the largest micro-batch that runs within a memory limit? Found by running: each try is a trial of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.errors import UsageError
from bench.options import Options
from bench.record.csvfile import write_table
from bench.terminal import paragraph
from bench.trial import Trial
from launch.group.run_context import RunContext, run_context
from launch.memory.devices import Budget, this_capability
from launch.run_options import RunOptions
from launch.sweep.runner import run_sweep


@dataclass(frozen=True)
class Fit:
    """The predicted and the measured largest micro-batch. `tried`: micro-batch -> whether it ran."""

    trial: Trial
    predicted: int
    measured: int
    tried: dict[int, bool]

    def difference(self) -> float:
        """Of the predicted from the measured one, as a share of that."""
        return self.predicted / self.measured - 1


def largest(trial: Trial, options: Options, gpus: int) -> Fit:
    """Try micro-batches around the predicted one.

    Raises UsageError if none fits, or a try ends neither as ok nor as oom.
    """
    from bench.memory.prediction import largest_micro_batch, most_images, shapes

    trial = short(trial, trial.micro_batch)
    assert trial.memory_limit_bytes is not None
    capability = this_capability(gpus)
    predicted, _ = largest_micro_batch(trial, trial.memory_limit_bytes, "cuda" if gpus else "cpu", capability)
    tried: dict[int, bool] = {}
    with run_context(dataclasses.replace(options, resume=False), gpus, RunOptions()) as context:

        def runs(micro_batch: int) -> bool:
            tried[micro_batch] = attempt(short(trial, micro_batch), context, len(tried) + 1)
            return tried[micro_batch]

        measured = search(predicted, most_images(trial, shapes(trial)), runs)
    if measured is None:
        raise UsageError(f"not even {min(tried)} images run in {trial.memory_limit_bytes} bytes; give a larger limit")
    return Fit(trial, predicted, measured, tried)


def search(start: int, most: int, runs: Callable[[int], bool], least: int = 2) -> int | None:
    """The largest number in least..most that runs, provided that all smaller ones run too; None: none runs.

    Galloping search: from `start`, up or down in steps that double, until one try ran and another did not; then bisect
    between them. A try takes seconds and the prediction is usually within 1%, so this needs few.
    """
    low, high = least - 1, most + 1  # invariant: low runs, high does not
    step = max(1, start // 100)
    size = min(max(start, least), most)
    up = None  # the direction, which the first try decides
    while high - low > 1:
        ran = runs(size)
        low, high = (size, high) if ran else (low, size)
        up = ran if up is None else up
        if (up and high <= most) or (not up and low >= least) or high - low <= 1:
            break
        size = min(size + step, most) if up else max(size - step, least)
        step *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if runs(middle) else (low, middle)
    return low if low >= least else None


def short(trial: Trial, micro_batch: int) -> Trial:
    """The trial at this micro-batch, of 2 epochs x 2 windows: an epoch's first window and its last, which may be short.

    Two epochs, because the optimizer's state exists only after the first window.
    """
    return dataclasses.replace(trial, micro_batch=micro_batch, epochs=2, warmup_windows=0, limit_windows=2)


def attempt(trial: Trial, context: RunContext, number: int) -> bool:
    """Whether the trial runs. Raises UsageError if it ends neither as ok nor as oom."""
    sweep = run_sweep([(f"[try {number}] micro_batch={trial.micro_batch}", trial)], context)
    ((_, _, row),) = sweep.ended
    if row["status"] not in ("ok", "oom"):
        raise UsageError(f"the try with micro-batch {trial.micro_batch} ended as {row['status']}: {row['error']}")
    return row["status"] == "ok"


def show(fit: Fit, budget: Budget) -> None:
    """Print the answer."""
    console = Console()
    trial = fit.trial
    what = f"{trial.experiment} {trial.arm}, accumulate {trial.accumulate}, precision {trial.precision}"
    paragraph(console, f"{what}: largest micro-batch within the limit")
    answer = f"predicted {fit.predicted}, measured {fit.measured} (prediction {fit.difference():+.1%})"
    paragraph(console, f"{answer}, {len(fit.tried)} tries", "  ")
    paragraph(console, f"per process: {budget.explain()}")


def write(path: Path, fit: Fit) -> None:
    """fit.csv: one row, the answer."""
    trial = fit.trial
    row = {
        **{
            name: getattr(trial, name)
            for name in ("experiment", "arm", "model", "precision", "accumulate", "processes")
        },
        "memory_limit_bytes": trial.memory_limit_bytes,
        "predicted_micro_batch": fit.predicted,
        "measured_micro_batch": fit.measured,
        "tries": len(fit.tried),
    }
    write_table(path, [row])
