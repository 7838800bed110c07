"""Loss and accuracy while training, over true images: what fills up a short batch does not count."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

from bench.column import Column, percent
from bench.probes import Aggregation, Span, Value, ratio
from bench.probes import Probe as Base

if TYPE_CHECKING:
    import torch

STEPS = [
    Column("train_loss", "float", "", "sum", "Mean cross-entropy over the window's images, before its step."),
    Column(
        "train_accuracy",
        "float",
        "1",
        "sum",
        "Share of the window's images classified correctly, before its step.",
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
    """Keeps which images were right on the device, a byte for each; nothing is added up or read before `windows()`."""

    TOTALS: ClassVar[dict[str, Aggregation]] = {
        "loss_sum": ("counter", "sum"),
        "hits": ("counter", "sum"),
        "seen": ("counter", "sum"),
    }

    def begin(self, device: torch.device) -> None:
        self.count = dict.fromkeys(self.TOTALS, 0.0)
        self.losses: list[torch.Tensor] = []  # each window's
        self.right: list[torch.Tensor] = []  # each micro-batch's, by image
        self.own: list[int] = []  # each window's images on this rank
        self.images: list[int] = []  # and on all
        self.loss: torch.Tensor | None = None
        self.seen = 0

    def micro_batch_end(self, loss_sum: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        # As few operations as will do: at small micro-batches each is felt.
        self.loss = loss_sum if self.loss is None else self.loss + loss_sum
        # Not the labels themselves: a loader's lie in shared memory, each with a file descriptor.
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
            "train_accuracy": [hit / n for hit, n in zip(hits, images, strict=True)],
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
