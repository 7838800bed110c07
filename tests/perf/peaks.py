"""torch's own peaks of memory in trials, on the CUDA device at hand: `python -m tests.perf.peaks < trials.json`.

Each trial trains as in the worker, on images that are all zero: the first two windows of an epoch, its last, short one,
and an evaluation; then the allocator is emptied for the next. Of a group's processes, rank 0 answers: a line of JSON a
trial, [most allocated, most reserved] in bytes.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
import time
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from torch import nn

from bench.data.pipeline import InputPipeline
from bench.machine.cuda import memory
from bench.memory.ddp import bucket_limits
from bench.memory.prediction import shapes
from bench.probes import Probe
from bench.training import setup
from bench.training.build import model_for
from bench.training.group import Group
from bench.training.loop import evaluation_sums, train_epoch
from bench.training.meter import Meter
from bench.training.windows import epoch_windows, some
from bench.trial import Trial
from bench.worker import all_probes

WINDOWS = 3
WATCHDOG_S = 0.1


def main() -> None:
    """Answer for each trial on stdin."""
    for settings in json.load(sys.stdin):
        given: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        found = peaks(Trial(**given))
        forget()
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(found), flush=True)


def peaks(trial: Trial) -> tuple[int, int]:
    """(most allocated, most reserved) by the trial's training and evaluation."""
    trial = dataclasses.replace(trial, weights="none")
    group = Group(trial)
    torch.cuda.reset_peak_memory_stats(group.device)
    data = shapes(trial)
    feed = InputPipeline(trial, data, group.device)
    training = setup.training(trial, group, model_for, data.classes)
    windows = list(epoch_windows(len(data.train), trial.micro_batch, trial.accumulate, trial.processes, group.rank))
    windows = some(windows, WINDOWS)
    probes = [*all_probes(), *([Holds(training.module, trial)] if trial.processes > 1 else [])]
    meter = Meter(probes, group.gather, trial.warmup_windows, group.device)
    batches = feed.train(0, [a_pass for window in windows for a_pass in window.passes])
    train_epoch(training, windows, batches, meter, lambda window: trial.lr, lambda rows: None)
    group.share_buffers(training.module)
    passes = [(0, min(trial.micro_batch, len(data.evaluation)))]
    evaluation_sums(training.module, feed.evaluate(passes), data.classes)
    meter.close()
    found = memory(group.device)
    if group.processes > 1:
        time.sleep(3 * WATCHDOG_S)
        group.gather([0.0])  # NCCL's group lets go of what its watchdog has seen to be done
    return found


class Holds(Probe):
    """Holds the first window's gradients, which are views of DDP's first bucket, until a bucket is shared again.

    NCCL's group does so too, unless its watchdog, which looks every 100 ms, happens to do so before the second window.
    That is rare on a GPU and common here, on a loaded CPU: chance is taken out.
    """

    def __init__(self, module: nn.Module, trial: Trial) -> None:
        self.limits = bucket_limits(trial)
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.hooks = [parameter.register_post_accumulate_grad_hook(self.accumulated) for parameter in trained]
        self.sharing_now = False
        self.order: list[torch.Tensor] = []
        self.held: list[torch.Tensor | None] = []
        self.left = 0

    def communication_begin(self, loss_sum: torch.Tensor) -> None:
        self.sharing_now = True

    def communication_end(self) -> None:
        self.sharing_now = False
        if self.order:
            self.held = [parameter.grad for parameter in self.order]
            (first, *_), _ = torch.distributed._compute_bucket_assignment_by_size(self.order, self.limits)
            self.left, self.order = len(first), []

    def accumulated(self, parameter: torch.Tensor) -> None:
        """A gradient is complete: in the first window one more to hold, in the second one more of a bucket."""
        if not self.sharing_now:
            return
        if not self.held:
            self.order.append(parameter)
            return
        self.left -= 1
        if self.left == 0:
            self.end()

    def end(self) -> None:
        self.held = []
        for hook in self.hooks:
            hook.remove()


def forget() -> None:
    """Leave the allocator as it was before the first trial."""
    AcceleratorState._reset_state(reset_partial_state=False)
    GradientState._reset_state()
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
