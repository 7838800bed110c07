"""Micro-batches of features that a frozen backbone has computed before, in place of those of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.data.dataset import DataSet, Split, pixels
from bench.data.loader import Batch
from bench.data.pipeline import FEWEST, InputPipeline, Passes, mirrored_images, of_pass
from bench.features.backbone import Backbone
from bench.features.store import take
from bench.training.confirm import contradiction
from bench.training.evaluation import limited
from bench.training.windows import share
from bench.trial import Trial


@dataclass(frozen=True)
class Part:
    """Images start..stop of a split, evaluated on after each epoch; their features lie in the store from `row` on.

    `split`: None for the evaluation set, as in `InputPipeline.evaluate`.
    """

    split: Split | None
    start: int
    stop: int
    row: int


class FeaturePipeline(InputPipeline):
    """As InputPipeline, but its micro-batches are (features (N, F), labels (N,)), once the features are computed.

    `outcomes`: how many different images the augmentation makes of one. Row o * M + i of the store is outcome o of
    training image i of M; behind them are this rank's images of each of `parts`.
    """

    def __init__(self, trial: Trial, data: DataSet, device: torch.device, free: float | None = None) -> None:
        super().__init__(trial, data, device, free)
        self.fixed = self.pipeline == "fixed"
        self.outcomes = 2 if trial.augmentation()[1] and not self.fixed else 1
        self.train_rows = self.outcomes * len(data.train)
        self.store: Tensor
        self.backbone: Backbone
        self.expected = 0

    def _choice(self, free: float) -> str:
        return "fixed" if self.trial.data == "synthetic" else "features"

    def parts(self, rank: int) -> list[Part]:
        """What this rank evaluates on after each epoch."""
        splits = [(None, self.data.evaluation), *((each, each) for each in (self.data.validation,) if each is not None)]
        found, row = [], self.train_rows
        for split, images in splits:
            start, stop = share(0, limited(self.trial, len(images)), self.trial.processes, rank)
            found.append(Part(split, start, stop, row))
            row += stop - start
        return found

    def pass_size(self) -> int:
        """How many images go through the backbone at once: as many as in a full micro-batch of training.

        Kernels are chosen by the size of a batch, and others may round otherwise.
        """
        return max(FEWEST, min(self.trial.micro_batch, -(-len(self.data.train) // self.trial.processes)))

    def train_images(self, start: int, stop: int) -> Tensor:
        """The images (N, 3, S, S) of these rows of the store, at most `pass_size`; filled up to it with the last."""
        if self.fixed:
            return self.images[: self.pass_size()]
        rows = torch.arange(start, start + self.pass_size()).clamp(max=stop - 1)
        outcome, index = rows // len(self.data.train), rows % len(self.data.train)
        images = pixels(self.data.train.images[index]).to(self.device)
        mirrored = (outcome == 1).to(self.device)
        return self._finish(torch.where(mirrored[:, None, None, None], images.flip(3), images))

    def images_of(self, split: Split | None, passes: Passes) -> Iterator[Batch]:
        """The images of what is evaluated, with their labels, and not their features."""
        return super().evaluate(passes, split if split is not None or self.fixed else self.data.evaluation)

    def train(self, epoch: int, passes: Passes) -> Iterator[Batch]:
        """Order and flips are those of `InputPipeline`, resident."""
        order, generator = self._order(epoch)
        rows = order
        if self.outcomes == 2:
            rows = order + len(order) * mirrored_images(len(order), generator)[order]
        labels, rows = self.data.train.labels[order].to(self.device), rows.to(self.store.device)
        for a_pass in passes:
            chosen = of_pass(rows, a_pass)
            if self.fixed:  # always the first of the same images
                chosen = torch.arange(len(chosen), device=rows.device)
            yield take(self.store, chosen, self.device), of_pass(labels, a_pass)

    def evaluate(self, passes: Passes, split: Split | None = None) -> Iterator[Batch]:
        """Of what is evaluated once, at the end, the features are computed here."""
        part = next((part for part in self.kept if part.split is split), None)
        if part is None:
            for images, labels in self.images_of(split, passes):
                self.expected += len(images)
                yield self.backbone(images, trains=False), labels
            return
        labels = (self.data.evaluation if split is None else split).labels
        for start, stop in passes:
            rows = torch.arange(start, stop, device=self.store.device) + (part.row - part.start)
            yield take(self.store, rows, self.device), labels[start:stop].to(self.device)

    def fill(self, store: Tensor, backbone: Backbone, kept: list[Part]) -> None:
        """From now on, make micro-batches of what is in the store. `kept`: what `parts` says of this rank."""
        self.store, self.backbone, self.kept = store, backbone, kept
        self.expected = backbone.images
        self.pipeline = "features"

    def confirm(self) -> None:
        """Raises UsageError if images have gone through the backbone that it had seen before."""
        if self.backbone.images != self.expected:
            again = self.backbone.images - self.expected
            raise contradiction("features", self.trial, f"{again} images went through the backbone once more")
