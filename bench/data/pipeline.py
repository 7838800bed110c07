"""From a data set to micro-batches on the device, where they are augmented, resized and normalised.

Three pipelines: `resident` keeps the data set on the device, `loader` reads it with DataLoader workers, and `fixed`
gives the same random images every time (--data synthetic).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data import augment, loader
from bench.data.dataset import DataSet, Split, in_files, in_memory
from bench.data.loader import PAD, Batch
from bench.machine import cgroups
from bench.trial import Trial

# BatchNorm cannot normalise a single value per channel, which one image is if the last stage is 1x1 pixels.
FEWEST = 2

Passes = Sequence[tuple[int, int]]


def free_bytes(trial: Trial, device: torch.device, root: Path = Path("/")) -> float:
    """The memory that is free for one process now: on its GPU, or its share of what the machine, or the container, has.

    A GPU in the CPU's chip, as a Jetson's, uses the machine's memory. There CUDA counts the page cache as in use.
    """
    if device.type == "cuda" and not torch.cuda.get_device_properties(device).is_integrated:
        return torch.cuda.mem_get_info(device)[0]
    free = cgroups.free_memory(root)
    free_here = psutil.virtual_memory().available if free is None else free.free_bytes  # None: not Linux
    return free_here * trial.machines / trial.processes


def free_for(trial: Trial, data: DataSet, device: torch.device) -> float:
    """`free_bytes` for this data set. What is in files is read into the machine's memory on its way to a GPU."""
    devices = {device, torch.device("cpu")} if in_files(data.train) else {device}
    return min(free_bytes(trial, each) for each in devices)


def pipeline_for(trial: Trial, data: DataSet, free: float) -> str:
    """resident, loader or fixed. auto: resident if the images take at most a quarter of the free memory and the limit.

    `free`: bytes for one process, the same on every rank.
    """
    if trial.data == "synthetic":
        return "fixed"
    if trial.pipeline != "auto":
        return trial.pipeline
    return "resident" if least_for_resident(data) <= min(free, trial.memory_limit_bytes or math.inf) else "loader"


def least_for_resident(data: DataSet) -> int:
    """The smallest memory, and the smallest limit, with which auto is resident."""
    return 4 * sum(split.images.numel() for split in (data.train, data.evaluation))


class InputPipeline:
    """Micro-batches of a data set on one device, augmented, resized and normalised.

    `train(epoch, passes)` and `evaluate(passes)` yield (images (N, 3, S, S) float32, labels (N,)) for each pass, a
    pair of positions in the epoch's order of images. A training pass of fewer than FEWEST images is filled up by
    repeating one of them; the loop leaves those out of the loss.
    """

    def __init__(self, trial: Trial, data: DataSet, device: torch.device, free: float | None = None) -> None:
        """`free`: bytes for one process, for `pipeline=auto`; None: what is free now. It must be equal on all ranks."""
        self.trial, self.data, self.device = trial, data, device
        self.pipeline = self._choice(free_for(trial, data, device) if free is None else free)
        self.format = torch.channels_last if trial.memory_format == "channels_last" else torch.contiguous_format
        self.mean, self.std = (torch.tensor(v, device=device).view(1, 3, 1, 1) * 255 for v in (data.mean, data.std))
        if self.pipeline == "resident":
            self.data = data = in_memory(data)
            # Padded once, for all crops; (M, H, W, C), so that a crop copies whole pixels (see `crops`).
            self.images = F.pad(data.train.images, [PAD] * 4 if trial.augmentation()[0] else [0] * 4)
            self.images = self.images.permute(0, 2, 3, 1).contiguous().to(device)
            self.labels = data.train.labels.to(device)
            self.eval_images, self.eval_labels = (
                data.evaluation.images.to(device),
                data.evaluation.labels.to(device),
            )
        elif self.pipeline == "fixed":
            generator = torch.Generator().manual_seed(trial.seed)
            shape = (max(FEWEST, trial.micro_batch, trial.eval_batch or 0), 3, trial.image_size, trial.image_size)
            self.images = torch.randn(shape, generator=generator).to(device, memory_format=self.format)
            self.labels, self.eval_labels = (s.labels.to(device) for s in (data.train, data.evaluation))

    def _choice(self, free: float) -> str:
        return pipeline_for(self.trial, self.data, free)

    def train(self, epoch: int, passes: Passes) -> Iterator[Batch]:
        """The epoch's micro-batches for this rank. Order and draws do not depend on the number of ranks.

        The epoch's order and random numbers are copied to the device before its first micro-batch, and sliced there: a
        copy for each micro-batch would wait for the device.
        """
        order, generator = self._order(epoch)
        make = {"resident": self._resident, "fixed": self._fixed, "loader": self._loader}[self.pipeline]
        return make(passes, order, generator)

    def evaluate(self, passes: Passes, split: Split | None = None) -> Iterator[Batch]:
        """The evaluation images, or those of another split, in their own order, without augmentation."""
        if self.pipeline == "fixed" and (split is None or split is self.data.validation):
            labels = self.eval_labels if split is None else split.labels.to(self.device)
            return ((self.images[: b - a], labels[a:b]) for a, b in passes)
        if split is not None and not (self.pipeline == "loader" and in_files(split)):
            parts = ((split.images[a:b], split.labels[a:b]) for a, b in passes)
            return ((self._finish(images.to(self.device)), labels.to(self.device)) for images, labels in parts)
        if self.pipeline == "loader":
            split = self.data.evaluation if split is None else split
            batches = self._load(split, [torch.arange(*p) for p in passes], (False, False))
            return ((self._finish(images), labels) for images, labels in batches)
        return ((self._finish(self.eval_images[a:b]), self.eval_labels[a:b]) for a, b in passes)

    def confirm(self) -> None:
        """Raises UsageError if micro-batches are made otherwise than the trial says, which these cannot be."""

    def _order(self, epoch: int) -> tuple[Tensor, torch.Generator]:
        """(the epoch's order of the training images, what draws its further random numbers)."""
        generator = torch.Generator().manual_seed(mix(self.trial.seed, epoch))
        return torch.randperm(len(self.data.train), generator=generator), generator

    def _fixed(self, passes: Passes, order: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        labels = self.labels[order.to(self.device)]
        for a_pass in passes:
            chosen = of_pass(labels, a_pass)
            yield self.images[: len(chosen)], chosen

    def _resident(self, passes: Passes, order: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        pixels = self._crop_pixels(order, generator)
        draws = self._draws(order, generator)
        order = order.to(self.device)
        labels = self.labels[order]
        for a_pass in passes:
            chosen = [of_pass(each, a_pass) for each in pixels]
            # Without crops and flips: whole images.
            images = crops(self.images, *chosen) if chosen else self.images[of_pass(order, a_pass)].permute(0, 3, 1, 2)
            yield self._finish(images, None if draws is None else of_pass(draws, a_pass)), of_pass(labels, a_pass)

    def _loader(self, passes: Passes, order: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        draws = self._draws(order, generator)
        batches = self._load(self.data.train, [of_pass(order, a_pass) for a_pass in passes], self.trial.augmentation())
        for a_pass, (images, labels) in zip(passes, batches, strict=True):
            yield self._finish(images, None if draws is None else of_pass(draws, a_pass)), labels

    def _crop_pixels(self, order: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """`crop_pixels` of a random crop of each image in this order; () if the trial neither crops nor flips."""
        crop, flip = self.trial.augmentation()
        if not (crop or flip):
            return ()
        count, pad = len(order), PAD if crop else 0
        # Drawn for images in their own order and then reordered: a draw belongs to its image, whichever rank has it.
        shift = torch.randint(0, 2 * PAD + 1, (2, count), generator=generator) if crop else torch.zeros(2, count).long()
        mirrored = mirrored_images(count, generator) if flip else torch.zeros(count).bool()
        shift, mirrored = shift[:, order].to(self.device), mirrored[order].to(self.device)
        return crop_pixels(self.images, order.to(self.device), shift, mirrored, pad)

    def _draws(self, order: Tensor, generator: torch.Generator) -> Tensor | None:
        """The draws of bench/data/augment.py for each image in this order; None: the trial needs none."""
        if self.trial.augment not in augment.NAMES:
            return None
        return torch.rand((len(order), augment.DRAWS), generator=generator)[order].to(self.device)

    def _load(self, split: Split, batches: Sequence[Tensor], augment: tuple[bool, bool]) -> Iterator[Batch]:
        pinned = self.device.type == "cuda"
        limited = self.trial.memory_limit_bytes is not None
        for images, labels in loader.load(split, batches, augment, self.trial.workers, pinned, limited):
            yield images.to(self.device, non_blocking=pinned), labels.to(self.device, non_blocking=pinned)

    def _finish(self, images: Tensor, draws: Tensor | None = None) -> Tensor:
        """uint8 (N, 3, H, W) -> float32 (N, 3, S, S): augmented by the draws, resized with antialiasing, normalised."""
        size = (self.trial.image_size,) * 2
        if draws is None and images.shape[-2:] == size:
            # One operation casts, changes the memory format and subtracts. The division stays a division: a product
            # with 1 / std would round differently from the general case below.
            values = torch.empty(images.shape, device=self.device, memory_format=self.format)
            return torch.sub(images, self.mean, out=values).div_(self.std)
        values = images.to(torch.float32, memory_format=self.format)
        if draws is not None:
            values = augment.apply(self.trial.augment, values, draws)
        if values.shape[-2:] != size:
            values = F.interpolate(values, size=size, mode="bilinear", antialias=True, align_corners=False)
        return values.sub_(self.mean).div_(self.std).contiguous(memory_format=self.format)


def mirrored_images(count: int, generator: torch.Generator) -> Tensor:
    """Which of so many images an epoch mirrors, in their own order: bool (N,)."""
    return torch.rand(count, generator=generator) < 0.5


def crop_pixels(images: Tensor, index: Tensor, shift: Tensor, mirrored: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """The pixels of crops of images (M, H + 2 pad, W + 2 pad, C), for `crops`: (rows (N, H), columns (N, W)).

    Pixels are numbered through all images; a pixel's number is the sum of its row's and its column's. index (N,): which
    images. shift (2, N): the crops' tops and lefts, each in 0..2 pad. mirrored (N,): which crops to flip.
    """
    _, height, width, _ = images.shape
    rows = (index * height + shift[0])[:, None] + torch.arange(height - 2 * pad, device=images.device)
    columns = torch.arange(width - 2 * pad, device=images.device)
    columns = torch.where(mirrored[:, None], width - 2 * pad - 1 - columns, columns)
    return rows.mul_(width), columns + shift[1, :, None]


def crops(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The crops of images (M, height, width, C) by `crop_pixels`: uint8 (N, C, H, W) in channels_last memory.

    By one index, because torch on a GPU expands several indices of different shapes to full size first.
    """
    return images.view(-1, images.shape[-1])[rows[:, :, None] + columns[:, None, :]].permute(0, 3, 1, 2)


def mix(*numbers: int) -> int:
    """One seed made of several numbers. Neighbouring numbers give unrelated seeds.

    The two large factors are SplitMix64's.
    """
    seed = 0
    for number in numbers:
        seed = ((seed ^ (number + 0x9E3779B9)) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
        seed ^= seed >> 31
    return seed


def of_pass(values: Tensor, a_pass: tuple[int, int]) -> Tensor:
    """The values of a pass, out of the epoch's; filled up to FEWEST by repeating one. A view."""
    start, stop = a_pass
    if stop - start >= FEWEST:
        return values[start:stop]
    first = start if start < stop else 0
    return values[first : first + 1].expand(FEWEST, *values.shape[1:])
