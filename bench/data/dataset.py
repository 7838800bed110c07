"""A data set in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Images (N, 3, H, W) uint8 and labels (N,) int64, on the CPU."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DataSet:
    """A data set: its two splits, and each channel's mean and standard deviation for images in 0..1."""

    train: Split
    evaluation: Split
    classes: int
    mean: Sequence[float]
    std: Sequence[float]
    names: Sequence[str] = ()
    """Of the classes, where they have any."""
    validation: Split | None = None
    """What of the training images is set aside."""
    other: Split | None = None
    """The evaluation images of another data set."""
