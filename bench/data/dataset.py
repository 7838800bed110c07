"""A data set in memory: what `datasets.load` returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Images (N, 3, H, W) uint8 and labels (N,) int64, on the CPU. The images may be image_files.ImageFiles."""

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


def in_files(split: Split) -> bool:
    """Whether the images are in files, from which they are read when they are asked for."""
    return not isinstance(split.images, Tensor)


def pixels(images: Tensor) -> Tensor:
    """The images of a split, or some of them, as a tensor, whether they are one or are read from files."""
    return images if isinstance(images, Tensor) else images.read()


def in_memory(data: DataSet) -> DataSet:
    """The data set with all images read that are in files."""

    def read(split: Split) -> Split:
        return Split(split.images.read(), split.labels) if in_files(split) else split  # type: ignore[attr-defined]

    aside = None if data.validation is None else read(data.validation)
    return dataclasses.replace(data, train=read(data.train), evaluation=read(data.evaluation), validation=aside)
