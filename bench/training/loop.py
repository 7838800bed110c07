"""The one training loop: exact windows, and evaluation that counts each image once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.failure.causes import Diverged
from bench.training.meter import Meter
from bench.training.windows import Window, share
from models import surgery


@dataclass
class Training:
    """What one process trains with.

    `model` is what forward and backward go through (under DDP, the wrapped one); `module` is the network itself.
    `no_sync` is entered around the passes whose gradients are not yet to be shared, `kept_casts` around the passes of a
    window that has several. With `keeps_gradients` gradients have memory of their own from the start, and are set to
    zero in it.
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

    def __post_init__(self) -> None:
        if self.scaler is not None:
            self.skipped = torch.zeros((), device=next(self.module.parameters()).device)
            self.optimizer.register_step_post_hook(self._count_skipped)
        if self.keeps_gradients:
            for parameter in filter(lambda each: each.requires_grad, self.module.parameters()):
                parameter.grad = torch.zeros_like(parameter)

    def step(self) -> None:
        """Update the parameters with the window's gradient, and drop it."""
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=not self.keeps_gradients)

    def skipped_steps(self) -> int:
        """Windows whose step fp16's loss scaling left out. Waits for the device."""
        return int(self.skipped.item()) if self.skipped is not None else 0

    def _count_skipped(self, optimizer: Any, *_: Any) -> None:
        # A fused optimizer is always stepped and skips by itself; this says whether it did, without waiting.
        self.skipped += optimizer.found_inf.reshape(())


@dataclass(frozen=True)
class Evaluation:
    """Mean loss over a data set, and for each label how many of its images were predicted as each class."""

    loss: float
    confusion: tuple[tuple[int, ...], ...]

    def images(self) -> int:
        """How many were evaluated."""
        return sum(map(sum, self.confusion))

    def accuracy(self) -> float:
        """Share of them that were predicted as what they are."""
        return sum(row[label] for label, row in enumerate(self.confusion)) / self.images()


def run_window(training: Training, window: Window, batches: Iterator[tuple[Tensor, Tensor]], meter: Meter) -> None:
    """One optimizer step, whose gradient is the mean over the window's images: all of them, of all processes.

    Each process adds up gradients of summed losses, over the window's own image count; DDP divides by the number of
    processes, which is taken back here. Only the last pass shares gradients.
    """
    scale = training.processes / window.images
    last = len(window.passes) - 1
    with training.kept_casts() if last else contextlib.nullcontext():
        for number, (start, stop) in enumerate(window.passes):
            images, labels = next(batches)
            synchronises = number == last
            with contextlib.nullcontext() if synchronises else training.no_sync():
                labels = labels[: stop - start]  # filled up with repeats, a pass is longer
                logits, loss_sum = forward(training, images, labels)
                if synchronises:
                    meter.communication_begin(loss_sum)
                backward(training, loss_sum * scale)
            if synchronises:
                meter.communication_end()
            meter.micro_batch_end(loss_sum.detach(), logits.detach(), labels)
    training.step()


def kept_casts(device: torch.device) -> AbstractContextManager[Any]:
    """While entered, the weights that a forward pass under autocast has cast serve the next ones too.

    Autocast forgets them when the outermost of its contexts ends; this one casts nothing itself. Gradients are the
    same: each pass has its own go through the cast, which keeps nothing for it.
    """
    return torch.autocast(device.type, enabled=False)


def forward(training: Training, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(logits, summed loss). Images beyond the labels fill the pass up, and do not count."""
    logits = training.model(images).float()
    if len(logits) > len(labels):
        logits = logits[: len(labels)]
    return logits, F.cross_entropy(logits, labels, reduction="sum")


def backward_with(scaler: torch.amp.GradScaler | None) -> Callable[[Tensor], None]:
    """As Accelerator.backward, which divides the loss before: by one, in two operations more."""
    return Tensor.backward if scaler is None else lambda loss: scaler.scale(loss).backward()


def backward(training: Training, loss: Tensor) -> None:
    """Add the loss's gradients to what the window has so far."""
    training.backward(loss)


def train_epoch(
    training: Training,
    windows: Iterable[Window],
    batches: Iterator[tuple[Tensor, Tensor]],
    meter: Meter,
    rate: Callable[[int], float],
    on_rows: Callable[[list[dict[str, Any]]], None],
) -> dict[str, Any]:
    """Train on one epoch's windows, and return what the probes say of it.

    `rate` gives the learning rate of a window by its number in the epoch; `on_rows` gets the rows of steps.csv as they
    are read. Diverged: a window's loss is not finite; its row was handed over before.
    """
    training.model.train()
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
        _hand_over(rows, on_rows)
        if rows:
            meter.resume()
    rows, epoch = meter.epoch_end({"windows": count, "learning_rate": lr})
    surgery.count_batches(training.module, passes)
    _hand_over(rows, on_rows)
    return epoch


def _hand_over(rows: list[dict[str, Any]], on_rows: Callable[[list[dict[str, Any]]], None]) -> None:
    if rows:
        on_rows(rows)
    for row in rows:
        if not math.isfinite(row.get("train_loss", 0.0)):
            raise Diverged(f"the training loss is {row['train_loss']} in window {row['window']}; try a smaller --lr")


def evaluate(
    module: nn.Module,
    feed: Callable[[list[tuple[int, int]]], Iterator[tuple[Tensor, Tensor]]],
    images: int,
    batch: int,
    rank: int,
    processes: int,
    add_up: Callable[[Tensor], Tensor],
    classes: int,
) -> Evaluation:
    """Over all `images`, `batch` at once, each counted once; `add_up` sums a tensor over the ranks."""
    start, stop = share(0, images, processes, rank)
    passes = [(at, min(at + batch, stop)) for at in range(start, stop, batch)]
    loss_sum, *counts = add_up(evaluation_sums(module, feed(passes), classes)).tolist()
    if sum(counts) != images:
        raise RuntimeError(f"evaluated {sum(counts):g} images of {images}")
    rows = (counts[at : at + classes] for at in range(0, classes * classes, classes))
    return Evaluation(loss_sum / images, tuple(tuple(map(int, row)) for row in rows))


@torch.no_grad()
def evaluation_sums(module: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], classes: int) -> Tensor:
    """(summed loss, the confusion matrix row by row) of these batches, with the module in evaluation mode.

    (1 + classes * classes,) float64; a row of the matrix is a label, a column what was predicted.
    """
    module.eval()
    sums = torch.zeros(1 + classes * classes, dtype=torch.float64, device=next(module.parameters()).device)
    for images, labels in batches:
        logits = module(images).float()
        sums[0] += F.cross_entropy(logits, labels, reduction="sum")
        cells = 1 + labels * classes + logits.argmax(1)
        sums.scatter_add_(0, cells, torch.ones_like(cells, dtype=torch.float64))
    return sums
