"""The suite's own training, set up in this process as its worker does, for checks that look at single windows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState

from bench.data import datasets
from bench.data.pipeline import InputPipeline
from bench.training import setup
from bench.training.build import model_for
from bench.training.group import Group
from bench.training.loop import Training, run_window, train_epoch
from bench.training.meter import Meter
from bench.training.windows import Window, epoch_windows
from bench.trial import Trial
from bench.worker import all_probes


@dataclass
class Loop:
    """What one process trains with, and on which windows of an epoch."""

    trial: Trial
    training: Training
    feed: InputPipeline
    meter: Meter
    device: torch.device

    def windows(self) -> list[Window]:
        """Those of a whole epoch."""
        trial = self.trial
        return list(epoch_windows(len(self.feed.data.train), trial.micro_batch, trial.accumulate, 1, 0))

    def batches(self, windows: Sequence[Window], epoch: int = 0) -> Iterator[Any]:
        """Their micro-batches, the wait for which is measured."""
        return self.meter.timed(self.feed.train(epoch, [a_pass for window in windows for a_pass in window.passes]))

    def run(self, window: Window, batches: Iterator[Any]) -> list[dict[str, Any]]:
        """Train on one window; rows of steps.csv where a block of them is full."""
        self.meter.window_begin(window)
        run_window(self.training, window, batches, self.meter)
        rows = self.meter.window_end(window, {})
        if rows:
            self.meter.resume()
        return rows

    def losses(self, windows: int) -> list[float]:
        """The training loss of the first windows, trained on."""
        rows: list[dict[str, Any]] = []
        chosen = self.windows()[:windows]
        batches = self.feed.train(0, [a_pass for window in chosen for a_pass in window.passes])
        train_epoch(self.training, chosen, batches, self.meter, lambda _: self.trial.lr, rows.extend)
        return [row["train_loss"] for row in rows]


def prepared(trial: Trial, cpu: bool = False) -> Loop:
    """The trial, ready to train on the GPU or on the CPU. Accelerate keeps one precision for a process, until here."""
    os.environ["ACCELERATE_USE_CPU"] = str(cpu).lower()
    AcceleratorState._reset_state(reset_partial_state=True)
    group = Group(trial)
    assert group.device.type == ("cpu" if cpu else "cuda")
    found = datasets.load(trial, Path())
    feed = InputPipeline(trial, found, group.device)
    training = setup.training(trial, group, model_for, found.classes)
    training.model.train()
    return Loop(
        trial, training, feed, Meter(all_probes(), group.gather, trial.warmup_windows, group.device), group.device
    )
