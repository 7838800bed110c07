"""The largest micro-batch that runs within a memory limit, found by running: each try is a process group of its own."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.errors import UsageError
from bench.options import Options
from bench.record.csvfile import cell, write_whole
from bench.trial import Trial
from launch.group.trial_launch import RunContext
from launch.memory.devices import Budget, this_capability
from launch.run_options import RunOptions
from launch.sweep.runner import run_context, run_sweep


@dataclass(frozen=True)
class Fit:
    """The answer, by prediction and by trial. `tried`: micro-batch -> whether it ran."""

    trial: Trial
    predicted: int
    measured: int
    tried: dict[int, bool]

    def difference(self) -> float:
        """Of the prediction, relative to what was measured."""
        return self.predicted / self.measured - 1


def largest(trial: Trial, options: Options, gpus: int) -> Fit:
    """Try micro-batches around the predicted one. UsageError: none fits, or a try ends otherwise than ok or oom."""
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
    """The largest number in least..most that runs, where all smaller ones do; None: not even the least.

    From `start` in steps that double until the answer is between two tries, then halving.
    """
    low, high = least - 1, most + 1  # low is taken to run, high not to
    step = max(1, start // 100)
    at = min(max(start, least), most)
    up = None
    while high - low > 1:
        ran = runs(at)
        low, high = (at, high) if ran else (low, at)
        up = ran if up is None else up
        if (up and high <= most) or (not up and low >= least) or high - low <= 1:
            break
        at = min(at + step, most) if up else max(at - step, least)
        step *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if runs(middle) else (low, middle)
    return low if low >= least else None


def short(trial: Trial, micro_batch: int) -> Trial:
    """The trial at this micro-batch: twice the first window and the last of an epoch, which may be short."""
    return dataclasses.replace(trial, micro_batch=micro_batch, epochs=2, warmup_windows=0, limit_windows=2)


def attempt(trial: Trial, context: RunContext, number: int) -> bool:
    """Whether the trial runs. UsageError: it neither runs nor runs out of memory."""
    sweep = run_sweep([(f"[try {number}] micro_batch={trial.micro_batch}", trial)], context)
    ((_, _, row),) = sweep.ended
    if row["status"] not in ("ok", "oom"):
        raise UsageError(f"the try with micro-batch {trial.micro_batch} ended as {row['status']}: {row['error']}")
    return row["status"] == "ok"


def show(found: Fit, budget: Budget) -> None:
    """The answer in a few lines."""
    console = Console(soft_wrap=True, highlight=False)
    trial = found.trial
    what = f"{trial.experiment} {trial.arm}, accumulate {trial.accumulate}, precision {trial.precision}"
    console.print(f"{what}: largest micro-batch within the limit")
    said = f"predicted {found.predicted}, measured {found.measured} (prediction {found.difference():+.1%})"
    console.print(f"  {said}, {len(found.tried)} tries")
    console.print(f"per process: {budget.explain()}")


def write(path: Path, found: Fit) -> None:
    """fit.csv: one row, the answer."""
    trial = found.trial
    row = {
        **{
            name: getattr(trial, name)
            for name in ("experiment", "arm", "model", "precision", "accumulate", "processes")
        },
        "memory_limit_bytes": trial.memory_limit_bytes,
        "predicted_micro_batch": found.predicted,
        "measured_micro_batch": found.measured,
        "tries": len(found.tried),
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([list(row), [cell(value) for value in row.values()]])
    write_whole(path, text.getvalue())
