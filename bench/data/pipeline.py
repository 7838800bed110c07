"""The pipelines that turn a data set into micro-batches on the device: augmented, resized and normalised there."""

from __future__ import annotations

import functools
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.data import augment
from bench.data.dataset import DataSet, Split
from bench.machine import memory_limit
from bench.trial import Trial

PAD = 4  # pixels on each side before a random crop (He et al. 2015, section 4.2)
# BatchNorm cannot normalise one value a channel, which one image is where the last stage is 1x1.
FEWEST = 2

Batch = tuple[Tensor, Tensor]
Passes = Sequence[tuple[int, int]]


def free_bytes(trial: Trial, device: torch.device) -> float:
    """What one process may have of the memory that is free now: its GPU's, or its part of the machine's.

    A GPU inside the CPU's chip (a Jetson's) has the machine's memory, of which CUDA takes the page cache to be in use.
    """
    if device.type == "cuda" and not torch.cuda.get_device_properties(device).is_integrated:
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available * trial.machines / trial.processes


def pipeline_for(trial: Trial, data: DataSet, free: float) -> str:
    """resident, loader or fixed. auto: resident where the images take at most a quarter of the free memory or limit.

    `free`: bytes for one process, the same on every rank.
    """
    if trial.data == "synthetic":
        return "fixed"
    if trial.pipeline != "auto":
        return trial.pipeline
    size = sum(split.images.numel() for split in (data.train, data.evaluation))
    return "resident" if size <= min(free, trial.memory_limit_bytes or math.inf) / 4 else "loader"


class InputPipeline:
    """Micro-batches of a data set on one device, augmented, resized and normalised there.

    `train(epoch, passes)` and `evaluate(passes)` yield (images (N, 3, S, S) float32, labels (N,)) for each pass, a
    pair of positions in the epoch's order of images. A training pass of fewer than two images is filled up by
    repeating one; the loop leaves those out of the loss.
    """

    def __init__(self, trial: Trial, data: DataSet, device: torch.device, free: float | None = None) -> None:
        """`free`: bytes for one process for `pipeline=auto`, by default what is free now; ranks have to agree on it."""
        self.trial, self.data, self.device = trial, data, device
        self.pipeline = pipeline_for(trial, data, free_bytes(trial, device) if free is None else free)
        self.format = torch.channels_last if trial.memory_format == "channels_last" else torch.contiguous_format
        self.mean, self.std = (torch.tensor(v, device=device).view(1, 3, 1, 1) * 255 for v in (data.mean, data.std))
        if self.pipeline == "resident":
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

    def train(self, epoch: int, passes: Passes) -> Iterator[Batch]:
        """The epoch's micro-batches for this rank. The order and the draws are the same on any number of ranks.

        What the epoch needs of order and chance goes to the device before its first micro-batch, and is sliced there:
        a copy for each micro-batch would wait for the device.
        """
        generator = torch.Generator().manual_seed(mix(self.trial.seed, epoch))
        order = torch.randperm(len(self.data.train), generator=generator)
        make = {"resident": self._resident, "fixed": self._fixed, "loader": self._loader}[self.pipeline]
        return make(passes, order, generator)

    def evaluate(self, passes: Passes, split: Split | None = None) -> Iterator[Batch]:
        """The evaluation images, or those of another split, in their own order, unaugmented; no pass is empty."""
        if self.pipeline == "fixed" and (split is None or split is self.data.validation):
            labels = self.eval_labels if split is None else split.labels.to(self.device)
            return ((self.images[: b - a], labels[a:b]) for a, b in passes)
        if split is not None:
            parts = ((split.images[a:b], split.labels[a:b]) for a, b in passes)
            return ((self._finish(images.to(self.device)), labels.to(self.device)) for images, labels in parts)
        if self.pipeline == "loader":
            batches = self._load(self.data.evaluation, [torch.arange(*p) for p in passes], (False, False))
            return ((self._finish(images), labels) for images, labels in batches)
        return ((self._finish(self.eval_images[a:b]), self.eval_labels[a:b]) for a, b in passes)

    def _fixed(self, passes: Passes, order: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        labels = self.labels[order.to(self.device)]
        for a_pass in passes:
            chosen = _slice(labels, a_pass)
            yield self.images[: len(chosen)], chosen

    def _resident(self, passes: Passes, order: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        places = self._places(order, generator)
        draws = self._draws(order, generator)
        order = order.to(self.device)
        labels = self.labels[order]
        for a_pass in passes:
            chosen = [_slice(place, a_pass) for place in places]
            images = crops(self.images, *chosen) if chosen else self.images[_slice(order, a_pass)].permute(0, 3, 1, 2)
            yield self._finish(images, None if draws is None else _slice(draws, a_pass)), _slice(labels, a_pass)

    def _loader(self, passes: Passes, order: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        draws = self._draws(order, generator)
        batches = self._load(self.data.train, [_slice(order, a_pass) for a_pass in passes], self.trial.augmentation())
        for a_pass, (images, labels) in zip(passes, batches, strict=True):
            yield self._finish(images, None if draws is None else _slice(draws, a_pass)), labels

    def _places(self, order: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """For each image in this order, where its crop is (see `places`); () where there is nothing to cut or flip."""
        crop, flip = self.trial.augmentation()
        if not (crop or flip):
            return ()
        count, pad = len(order), PAD if crop else 0
        # Drawn by image and then put in order, so that no draw depends on how ranks share the images.
        shift = torch.randint(0, 2 * PAD + 1, (2, count), generator=generator) if crop else torch.zeros(2, count).long()
        mirrored = torch.rand(count, generator=generator) < 0.5 if flip else torch.zeros(count).bool()
        shift, mirrored = shift[:, order].to(self.device), mirrored[order].to(self.device)
        return places(self.images, order.to(self.device), shift, mirrored, pad)

    def _draws(self, order: Tensor, generator: torch.Generator) -> Tensor | None:
        """What bench/data/augment.py needs of chance for each image in this order; None: it is not asked for."""
        if self.trial.augment not in augment.NAMES:
            return None
        return torch.rand((len(order), augment.DRAWS), generator=generator)[order].to(self.device)

    def _load(self, split: Split, batches: Sequence[Tensor], augment: tuple[bool, bool]) -> Iterator[Batch]:
        pinned = self.device.type == "cuda"
        loader = DataLoader(
            Images(split, augmenter(*augment, size=split.images.shape[-2:])),
            batch_sampler=[batch.tolist() for batch in batches],
            num_workers=self.trial.workers,
            pin_memory=pinned,
            worker_init_fn=functools.partial(_begin_worker, limited=self.trial.memory_limit_bytes is not None),
        )
        for images, labels in loader:
            yield images.to(self.device, non_blocking=pinned), labels.to(self.device, non_blocking=pinned)

    def _finish(self, images: Tensor, draws: Tensor | None = None) -> Tensor:
        """uint8 (N, 3, H, W) augmented by the draws, resized with antialiasing and normalised, as float32."""
        size = (self.trial.image_size,) * 2
        if draws is None and images.shape[-2:] == size:
            # One operation casts, lays out and subtracts. Nor is the division a product: that would round otherwise.
            values = torch.empty(images.shape, device=self.device, memory_format=self.format)
            return torch.sub(images, self.mean, out=values).div_(self.std)
        values = images.to(torch.float32, memory_format=self.format)
        if draws is not None:
            values = augment.apply(self.trial.augment, values, draws)
        if values.shape[-2:] != size:
            values = F.interpolate(values, size=size, mode="bilinear", antialias=True, align_corners=False)
        return values.sub_(self.mean).div_(self.std).contiguous(memory_format=self.format)


class Images(Dataset):
    """A split as a data set of single images, as DataLoader's workers take them."""

    def __init__(self, split: Split, transform: Callable[[Any], Any] | None) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Batch:
        image = self.split.images[index]
        return (self.transform(image) if self.transform else image), self.split.labels[index]


def augmenter(crop: bool, flip: bool, size: Sequence[int]) -> Callable[[Any], Any] | None:
    """torchvision's transforms for one uint8 image (3, H, W) of this size, or None."""
    from torchvision.transforms import v2

    steps: list[Any] = [v2.RandomCrop(list(size), padding=PAD)] if crop else []
    steps += [v2.RandomHorizontalFlip()] if flip else []
    return v2.Compose([v2.ToImage(), *steps, v2.ToPureTensor()]) if steps else None


def places(images: Tensor, index: Tensor, shift: Tensor, mirrored: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Where windows lie in images (M, H + 2 pad, W + 2 pad, C), for `crops`: (rows (N, H), columns (N, W)).

    A pixel's number among those of all images is the sum of its row's and its column's. index, mirrored (N,); shift
    (2, N), each 0..2 pad, from the top left.
    """
    _, tall, wide, _ = images.shape
    rows = (index * tall + shift[0])[:, None] + torch.arange(tall - 2 * pad, device=images.device)
    columns = torch.arange(wide - 2 * pad, device=images.device)
    columns = torch.where(mirrored[:, None], wide - 2 * pad - 1 - columns, columns)
    return rows.mul_(wide), columns + shift[1, :, None]


def crops(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Cut windows out of images (M, height, width, C), `places` says which: uint8 (N, C, H, W), channels_last memory.

    One index, since several of unlike shapes are each written out first on a GPU.
    """
    return images.view(-1, images.shape[-1])[rows[:, :, None] + columns[:, None, :]].permute(0, 3, 1, 2)


def mix(*numbers: int) -> int:
    """One seed out of several numbers; near ones give unlike seeds."""
    seed = 0
    for number in numbers:
        seed = ((seed ^ (number + 0x9E3779B9)) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
        seed ^= seed >> 31
    return seed


def _slice(values: Tensor, a_pass: tuple[int, int]) -> Tensor:
    """What a pass has of an epoch's values, filled up to FEWEST by repeating one; a view."""
    start, stop = a_pass
    if stop - start >= FEWEST:
        return values[start:stop]
    first = start if start < stop else 0
    return values[first : first + 1].expand(FEWEST, *values.shape[1:])


def _begin_worker(worker: int, limited: bool) -> None:
    """Set up a loader worker, which is forked from the process that trains."""
    torch.set_num_threads(1)  # it augments single images: more threads would take cores from training
    if limited:
        memory_limit.remove()  # the limit is one on the process that trains
        # That process pauses when it crashes (see bench/failure/crash_handler.py). A worker has to end.
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
