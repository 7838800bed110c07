"""Loss and accuracy while training, over true images: what fills up a short batch does not count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.probes import Over, Span, Value, ratio
from bench.probes import Probe as Base
from bench.record import Column

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
    Column("train_accuracy", "float", "1", "", "The last epoch's train_accuracy."),
]


class Probe(Base):
    """Adds up on the device; nothing is read before `windows()`."""

    TOTALS: ClassVar[dict[str, Over]] = {
        "loss_sum": ("counter", "sum"),
        "hits": ("counter", "sum"),
        "seen": ("counter", "sum"),
    }

    def begin(self, device: torch.device) -> None:
        self.count = dict.fromkeys(self.TOTALS, 0.0)
        self.sums: list[Any] = []
        self.images: list[int] = []
        self.window: Any = None

    def passed(self, loss_sum: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        # As few operations as will do: at small micro-batches each is felt.
        hits = (logits.argmax(1) == labels).sum()
        self.window = (loss_sum, hits) if self.window is None else (self.window[0] + loss_sum, self.window[1] + hits)
        self.count["seen"] += len(labels)

    def window_end(self, images: int, measured: bool) -> None:
        self.sums.append(self.window)
        self.images.append(images)
        self.window = None

    def windows(self) -> dict[str, list[Value]]:
        import torch

        sums = list(zip(*(torch.stack(each).tolist() for each in zip(*self.sums, strict=True)), strict=True))
        self.count["loss_sum"] += sum(loss for loss, _ in sums)
        self.count["hits"] += sum(hits for _, hits in sums)
        parts = [(loss / n, hits / n) for (loss, hits), n in zip(sums, self.images, strict=True)]
        self.sums, self.images = [], []
        return {"train_loss": [loss for loss, _ in parts], "train_accuracy": [hits for _, hits in parts]}

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
