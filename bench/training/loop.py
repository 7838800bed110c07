"""The training loop: one optimizer step for each window. And the evaluation loop, which counts each image once."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.failure.causes import Diverged
from bench.failure.last_phase import unmarked
from bench.training.meter import Meter
from bench.training.windows import Window, share
from models import surgery


@dataclass
class Training:
    """What one process trains with.

    `model` is what forward and backward go through (under DDP, the wrapper); `module` is the network itself, and `part`
    the part of it that micro-batches go through: all of it, or the head alone, of stored features.
    `no_sync` is entered around passes whose gradients are not shared yet, `kept_casts` around all passes of a window
    that has several. With `keeps_gradients`, gradients have memory of their own from the start, which is set to zero
    after each step. `mark` is told which phase follows (see bench.failure.last_phase).
    """

    model: nn.Module
    module: nn.Module
    optimizer: torch.optim.Optimizer
    processes: int = 1
    backward: Callable[[Tensor], None] = torch.Tensor.backward
    no_sync: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    kept_casts: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    scaler: torch.amp.GradScaler | None = None
    keeps_gradients: bool = False
    skipped: Tensor | None = None
    mark: Callable[[str], None] = unmarked
    part: nn.Module = None  # type: ignore[assignment]  # the module, unless another is given

    def __post_init__(self) -> None:
        self.part = self.module if self.part is None else self.part
        if self.scaler is not None:
            self.skipped = torch.zeros((), device=next(self.module.parameters()).device)
            self.optimizer.register_step_post_hook(self._count_skipped)
        if self.keeps_gradients:
            for parameter in filter(lambda each: each.requires_grad, self.module.parameters()):
                parameter.grad = torch.zeros_like(parameter)

    def step(self) -> None:
        """Update the parameters with the window's gradient, then drop the gradient."""
        self.mark("optimizer")
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=not self.keeps_gradients)

    def skipped_steps(self) -> int:
        """Steps that fp16's loss scaling skipped, since the start. Waits for the device."""
        return int(self.skipped.item()) if self.skipped is not None else 0

    def _count_skipped(self, optimizer: Any, *_: Any) -> None:
        # The scaler always calls a fused optimizer's step, and the optimizer skips it on the device. Its flag says so
        # without waiting for the device.
        self.skipped += optimizer.found_inf.reshape(())


@dataclass(frozen=True)
class Evaluation:
    """Mean loss over a data set, and for each label how many of its images were predicted as each class.

    `time_s`: what the evaluation took, until all ranks had ended.
    """

    loss: float
    confusion: tuple[tuple[int, ...], ...]
    time_s: float = field(compare=False)

    def images(self) -> int:
        """How many images were evaluated."""
        return sum(map(sum, self.confusion))

    def accuracy(self) -> float | None:
        """Share of the images that were predicted correctly. None: the loss is not finite, so none was predicted."""
        if not math.isfinite(self.loss):
            return None
        return sum(row[label] for label, row in enumerate(self.confusion)) / self.images()


def run_window(training: Training, window: Window, batches: Iterator[tuple[Tensor, Tensor]], meter: Meter) -> None:
    """One optimizer step. Its gradient is the mean over the window's images, over all processes.

    Each process adds up gradients of summed losses, divided by the window's own number of images. DDP then takes the
    mean over the processes where the sum is needed, so the loss is multiplied by their number. Only the last pass
    shares gradients.
    """
    scale = training.processes / window.images
    last = len(window.passes) - 1
    with training.kept_casts() if last else contextlib.nullcontext():
        for number, (start, stop) in enumerate(window.passes):
            training.mark("data")
            images, labels = next(batches)
            synchronises = number == last
            with contextlib.nullcontext() if synchronises else training.no_sync():
                labels = labels[: stop - start]  # the pipeline fills up a pass that is too short
                training.mark("forward")
                logits, loss_sum = forward(training, images, labels)
                if synchronises:
                    meter.communication_begin(loss_sum)
                training.mark("backward")
                backward(training, loss_sum * scale)
            if synchronises:
                meter.communication_end()
            meter.micro_batch_end(loss_sum.detach(), logits.detach(), labels)
    training.step()


def kept_casts(device: torch.device) -> AbstractContextManager[Any]:
    """While entered, weights that autocast has cast in one forward pass are used again in the next ones.

    Autocast drops its casts when the outermost autocast context ends; this is one, and casts nothing itself. Gradients
    do not change: the backward pass of a cast keeps no state, so each forward pass goes through it once more.
    """
    return torch.autocast(device.type, enabled=False)


def forward(training: Training, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(logits, summed loss). Images beyond the labels only fill up the pass, and do not count."""
    logits = training.model(images).float()
    if len(logits) > len(labels):
        logits = logits[: len(labels)]
    return logits, F.cross_entropy(logits, labels, reduction="sum")


def backward_with(scaler: torch.amp.GradScaler | None) -> Callable[[Tensor], None]:
    """The backward call. Accelerator.backward would first divide the loss by one, which takes two more operations."""
    return Tensor.backward if scaler is None else lambda loss: scaler.scale(loss).backward()


def backward(training: Training, loss: Tensor) -> None:
    """Add the loss's gradients to those of the window. A function of its own, so that a traceback shows the phase."""
    training.backward(loss)


def train_epoch(
    training: Training,
    windows: Iterable[Window],
    batches: Iterator[tuple[Tensor, Tensor]],
    meter: Meter,
    rate: Callable[[int], float],
    on_rows: Callable[[list[dict[str, Any]]], None],
) -> dict[str, Any]:
    """Train on one epoch's windows. Returns the probes' columns of epochs.csv.

    `rate`: number of a window in the epoch -> its learning rate. `on_rows` gets rows of steps.csv, a block at a time.
    Raises Diverged if a window's loss is not finite, after `on_rows` got its row.
    """
    training.model.train()  # an evaluation has put it into evaluation mode
    batches = meter.timed(batches)
    count = passes = 0
    for window in windows:
        count += 1
        passes += len(window.passes)
        lr = rate(window.index)
        for group in training.optimizer.param_groups:
            group["lr"] = lr
        meter.window_begin(window)
        run_window(training, window, batches, meter)
        rows = meter.window_end(window, {"learning_rate": lr})
        _report(rows, on_rows)
        if rows:
            meter.resume()
    rows, epoch = meter.epoch_end({"windows": count, "learning_rate": lr})
    surgery.count_batches(training.module, passes)  # before a checkpoint is saved
    _report(rows, on_rows)
    return epoch


def _report(rows: list[dict[str, Any]], on_rows: Callable[[list[dict[str, Any]]], None]) -> None:
    if rows:
        on_rows(rows)
    # After on_rows: the row of a diverged window has to be in steps.csv.
    for row in rows:
        if not math.isfinite(row.get("train_loss", 0.0)):
            raise Diverged(f"the training loss is {row['train_loss']} in step {row['window']}; try a smaller --lr")


def evaluate(
    module: nn.Module,
    batches: Callable[[list[tuple[int, int]]], Iterator[tuple[Tensor, Tensor]]],
    images: int,
    batch: int,
    rank: int,
    processes: int,
    add_up: Callable[[Tensor], Tensor],
    classes: int,
) -> Evaluation:
    """Evaluate on `images` images, `batch` at once, each counted once.

    `batches`: passes -> their micro-batches. `add_up` sums a tensor over the ranks.
    """
    began_s = time.perf_counter()
    start, stop = share(0, images, processes, rank)
    passes = [(first, min(first + batch, stop)) for first in range(start, stop, batch)]
    loss_sum, *counts = add_up(evaluation_sums(module, batches(passes), classes)).tolist()
    time_s = time.perf_counter() - began_s
    if sum(counts) != images:
        raise RuntimeError(f"evaluated {sum(counts):g} images of {images}")
    rows = (counts[first : first + classes] for first in range(0, classes * classes, classes))
    return Evaluation(loss_sum / images, tuple(tuple(map(int, row)) for row in rows), time_s)


@torch.no_grad()
def evaluation_sums(module: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], classes: int) -> Tensor:
    """(summed loss, confusion matrix row by row) of these batches, with the module in evaluation mode.

    (1 + classes * classes,) float64, on the device. Rows of the matrix are labels, columns predictions. One tensor, so
    that ranks share it in one collective; float64 counts exactly up to 2^53.
    """
    module.eval()
    sums = torch.zeros(1 + classes * classes, dtype=torch.float64, device=next(module.parameters()).device)
    for images, labels in batches:
        logits = module(images).float()
        sums[0] += F.cross_entropy(logits, labels, reduction="sum")
        cells = 1 + labels * classes + logits.argmax(1)
        sums.scatter_add_(0, cells, torch.ones_like(cells, dtype=torch.float64))
    return sums
