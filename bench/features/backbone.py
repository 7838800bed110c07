"""The frozen backbone of a training as a function, which counts the images that go through it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import UsageError
from models import ModelError, backbone


class Backbone:
    """Images (N, 3, S, S) -> features (N, F), in the number format in which the head takes them.

    `images`: how many have gone through the network since this was made, by whatever way.
    """

    def __init__(self, module: nn.Module, device: torch.device, autocast: Callable[[], AbstractContextManager[Any]]):
        self.module, self.device, self.autocast = module, device, autocast
        self.images = 0
        module.register_forward_pre_hook(self._count)

    def _count(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self.images += len(arguments[0])

    @torch.no_grad()
    def __call__(self, images: Tensor, trains: bool) -> Tensor:
        """`trains`: as in training mode, else as in evaluation mode. Raises UsageError if features are random."""
        self.module.train(trains)
        before = backbone.random_states(self.device)
        buffers = {} if self.images else {name: each.clone() for name, each in self.module.named_buffers()}
        try:
            with self.autocast():
                found = backbone.features(self.module, images)
        except ModelError as error:
            raise UsageError(f"--features is once, but {error}") from error
        for name, each in self.module.named_buffers():
            if name in buffers and not torch.equal(each, buffers[name]):
                raise UsageError(f"--features is once, but {name} changes in each pass; give --features each_epoch")
        if before != backbone.random_states(self.device):
            raise UsageError(
                "--features is once, but something before the head drew random numbers, so that features differ each "
                "time; give --features each_epoch"
            )
        return found
