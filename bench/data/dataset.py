"""A data set in memory: what `datasets.load` returns."""

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
    """A data set, and the mean and standard deviation of each channel for images in 0..1."""

    train: Split
    evaluation: Split
    classes: int
    mean: Sequence[float]
    std: Sequence[float]
    names: Sequence[str] = ()
    """Names of the classes; empty: unknown."""
    validation: Split | None = None
    """Training images that are set aside for evaluation."""
    other: Split | None = None
    """Evaluation images of another data set (--evaluate-on)."""
