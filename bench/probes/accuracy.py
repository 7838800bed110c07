"""Loss and accuracy while training, over true images: images that only fill up a short batch do not count."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

from bench.column import Column, percent
from bench.probes import Aggregation, Span, Value, ratio
from bench.probes import Probe as Base

if TYPE_CHECKING:
    import torch

STEPS = [
    Column("train_loss", "float", "", "sum", "Mean cross-entropy over the step's images, before the update."),
    Column(
        "train_accuracy",
        "float",
        "1",
        "sum",
        "Share of the step's images classified correctly, before the update; empty: the loss is not finite.",
    ),
]
EPOCHS = [
    Column("train_loss", "float", "", "", "Mean cross-entropy over the epoch's images, while training."),
    Column(
        "train_accuracy",
        "float",
        "1",
        "",
        "Share of the epoch's images classified correctly, while training.",
    ),
]
TRIALS = [
    Column("train_loss", "float", "", "", "The last epoch's train_loss."),
    Column("train_accuracy", "float", "1", "", "The last epoch's train_accuracy.", shown=percent("train\nacc %", 40)),
]


class Probe(Base):
    """Keeps on the device which images were classified correctly, a byte each, and reads them in `windows()` alone."""

    TOTALS: ClassVar[dict[str, Aggregation]] = {
        "loss_sum": ("counter", "sum"),
        "hits": ("counter", "sum"),
        "seen": ("counter", "sum"),
    }

    def begin(self, device: torch.device) -> None:
        self.count = dict.fromkeys(self.TOTALS, 0.0)
        self.losses: list[torch.Tensor] = []  # () of each window: summed loss
        self.right: list[torch.Tensor] = []  # (N,) of each micro-batch: whether the class is right
        self.own: list[int] = []  # images of each window on this rank
        self.images: list[int] = []  # images of each window on all ranks
        self.loss: torch.Tensor | None = None
        self.seen = 0

    def micro_batch_end(self, loss_sum: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        # As few operations as possible: at small micro-batches each one costs measurable time.
        self.loss = loss_sum if self.loss is None else self.loss + loss_sum
        # Do not keep the labels: each batch of a loader's workers holds a file descriptor of shared memory.
        self.right.append(logits.argmax(1) == labels)
        self.seen += len(labels)

    def window_end(self, images: int, measured: bool) -> None:
        assert self.loss is not None
        self.losses.append(self.loss)
        self.own.append(self.seen)
        self.images.append(images)
        self.loss, self.seen = None, 0

    def windows(self) -> dict[str, list[Value]]:
        import torch

        if not self.losses:
            return {"train_loss": [], "train_accuracy": []}
        losses = torch.stack(self.losses).tolist()
        right = torch.cat(self.right).tolist()
        ends = list(accumulate(self.own))
        hits = [sum(right[end - own : end]) for own, end in zip(self.own, ends, strict=True)]
        self.count["loss_sum"] += sum(losses)
        self.count["hits"] += sum(hits)
        self.count["seen"] += ends[-1]
        images, self.images = self.images, []
        self.losses, self.right, self.own = [], [], []
        return {
            "train_loss": [loss / n for loss, n in zip(losses, images, strict=True)],
            # Of nan, argmax is 0: it would count the images of the first class as right.
            "train_accuracy": [
                hit / n if math.isfinite(loss) else None for hit, n, loss in zip(hits, images, losses, strict=True)
            ],
        }

    def totals(self) -> dict[str, Value]:
        return dict(self.count)

    def derive(self, span: Span) -> dict[str, Value]:
        if span.epochs is not None:
            last = span.epochs[-1] if span.epochs else {}
            return {name: last.get(name) for name in ("train_loss", "train_accuracy")}
        totals = span.totals
        return {
            "train_loss": ratio(totals["loss_sum"], totals["seen"]),
            "train_accuracy": ratio(totals["hits"], totals["seen"]),
        }
