"""The training path as it was before it was made fast on a GPU, piece by piece: what the fast one is held against.

Each function puts one piece of the plain path into a loop that is set up; results stay what they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from bench.data import augment
from bench.data.pipeline import FEWEST, PAD, Batch, InputPipeline, Passes
from bench.instruments.clock import clock_for
from bench.probes import Probe
from bench.training.loop import train_epoch
from bench.training.windows import epoch_windows
from bench.trial import Trial
from models.surgery import UncountedBatchNorm2d

from .contenders import Ours

AUGMENTED = ("none", "flip", "crop_flip", *augment.NAMES)


class PlainFeed(InputPipeline):
    """Order and draws are looked up by indices that each micro-batch copies; the images go through many operations."""

    def _fixed(self, passes: Passes, order: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        for pick in _picks(order, passes):
            yield self.images[: len(pick)], self.labels[pick.to(self.device)]

    def _resident(self, passes: Passes, order: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        crop, flip = self.trial.augmentation()
        count = len(order)
        shifts = torch.zeros(2, count).long()
        if crop:
            shifts = torch.randint(0, 2 * PAD + 1, (2, count), generator=generator)
        mirrored = torch.rand(count, generator=generator) < 0.5 if flip else torch.zeros(count).bool()
        shifts, mirrored = shifts.to(self.device), mirrored.to(self.device)
        draws = self._plain_draws(count, generator)
        for pick in _picks(order, passes):
            index = pick.to(self.device, non_blocking=True)
            images = _crops(self.images, index, shifts[:, index], mirrored[index], PAD if crop else 0)
            yield self._finish(images, None if draws is None else draws[index]), self.labels[index]

    def _loader(self, passes: Passes, order: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        draws = self._plain_draws(len(order), generator)
        picks = _picks(order, passes)
        batches = self._load(self.data.train, picks, self.trial.augmentation())
        for pick, (images, labels) in zip(picks, batches, strict=True):
            yield self._finish(images, None if draws is None else draws[pick.to(self.device)]), labels

    def _plain_draws(self, images: int, generator: torch.Generator) -> Tensor | None:
        if self.trial.augment not in augment.NAMES:
            return None
        return torch.rand((images, augment.DRAWS), generator=generator).to(self.device)

    def _finish(self, images: Tensor, draws: Tensor | None = None) -> Tensor:
        values = images.to(torch.float32, memory_format=self.format)
        if draws is not None:
            values = augment.apply(self.trial.augment, values, draws)
        size = (self.trial.image_size,) * 2
        if values.shape[-2:] != size:
            values = F.interpolate(values, size=size, mode="bilinear", antialias=True, align_corners=False)
        return values.sub_(self.mean).div_(self.std).contiguous(memory_format=self.format)


def _picks(order: Tensor, passes: Passes) -> list[Tensor]:
    picks = []
    for start, stop in passes:
        pick = order[start:stop]
        spare = pick[:1] if len(pick) else order[:1]
        picks.append(pick if len(pick) >= FEWEST else torch.cat([pick, spare.expand(FEWEST - len(pick))]))
    return picks


def _crops(images: Tensor, index: Tensor, shift: Tensor, mirrored: Tensor, pad: int) -> Tensor:
    height, width = images.shape[1] - 2 * pad, images.shape[2] - 2 * pad
    rows = shift[0, :, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(len(index), -1)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns) + shift[1, :, None]
    return images[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def feed(loop: Ours) -> None:
    """Indices copied and images made for each micro-batch."""
    loop.feed = PlainFeed(loop.trial, loop.feed.data, loop.feed.device)


def casts(loop: Ours) -> None:
    """Weights cast in each micro-batch."""
    loop.training.kept_casts = contextlib.nullcontext


def counters(loop: Ours) -> None:
    """Each BatchNorm counts its batches."""
    for module in loop.training.module.modules():
        if type(module) is UncountedBatchNorm2d:
            setattr(module, "__class__", nn.BatchNorm2d)  # noqa: B010  mypy lets no class become its base


def division(loop: Ours) -> None:
    """The loss divided by one, by Accelerate."""
    loop.training.backward = loop.accelerator.backward


class OwnClock(Probe):
    """Marks each window's end for itself."""

    def begin(self, device: torch.device) -> None:
        self.own = clock_for(device)

    def resume(self) -> None:
        self.own.start()

    def window_end(self, images: int, measured: bool) -> None:
        self.own.mark()


def clocks(loop: Ours) -> None:
    """A clock for each probe that needs one: two."""
    probe: Any = OwnClock()
    probe.begin(loop.device)
    loop.meter.probes = [*loop.meter.probes, probe]


PIECES: dict[str, Callable[[Ours], None]] = {
    "order, crops and normalisation": feed,
    "weight casts kept over a window": casts,
    "no num_batches_tracked": counters,
    "no division by 1": division,
    "one clock": clocks,
}


def start(trial: Trial, images: int, plain: bool) -> Ours:
    """The suite's loop, fast or plain. Accelerate keeps one precision for a process: it is reset."""
    AcceleratorState._reset_state(reset_partial_state=True)
    loop = Ours(trial, images)
    for piece in PIECES.values() if plain else ():
        piece(loop)
    return loop


def small(**changes: Any) -> Trial:
    """The smallest there is."""
    common: dict[str, Any] = {"model": "resnet8", "micro_batch": 4, "augment": "none", "pipeline": "resident"}
    return Trial(**{**common, "workers": 0, **changes})


def trained(trial: Trial, plain: bool, device: str = "cpu") -> tuple[list[float], dict[str, Tensor]]:
    """(the losses of twenty windows, the last one short; the state that they leave)."""
    images = 20 * trial.effective_batch() - 3
    loop = start(trial, images, plain)
    assert loop.device.type == device
    windows = list(epoch_windows(images, trial.micro_batch, trial.accumulate, 1, 0))
    batches = loop.feed.train(0, [a_pass for window in windows for a_pass in window.passes])
    rows: list[dict[str, Any]] = []
    train_epoch(loop.training, windows, batches, loop.meter, lambda _: 0.05, rows.extend)
    return [row["train_loss"] for row in rows], loop.training.module.state_dict()


def same(trial: Trial, device: str = "cpu") -> int:
    """How many windows there were: fast and plain, to the last bit."""
    (fast, state), (plain, expected) = (trained(trial, plain, device) for plain in (False, True))
    assert fast == plain
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert state["bn1.num_batches_tracked"] > trial.accumulate * (len(fast) - 1)
    return len(set(fast))
