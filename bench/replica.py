"""What DistributedDataParallel does to memory, for one process alone and on tensors without data.

Gradients live in flat buckets, of which they are views (gradient_as_bucket_view); passes under `no_sync` leave theirs
outside, and the last pass of the window moves the sum in. After the first window the buckets are made anew.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.tracker import Tracker

# DDP's own sizes: the first bucket, the others, and the flat copies in which it broadcasts the model at the start.
FIRST_BUCKET = 2**20
BUCKET = 25 * 2**20
BROADCAST = 250 * 2**20
BROADCASTS_AT_ONCE = 2


class Replica(nn.Module):
    """A module as training calls it; with several processes, with DDP's buckets. Tells the tracker of gradients."""

    def __init__(self, module: nn.Module, processes: int, tracker: Tracker) -> None:
        super().__init__()
        self.module, self.tracker = module, tracker
        self.shares = True
        self.ready: list[Tensor] | None = []  # in the order of their gradients; None: the buckets follow it
        self.trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.views: dict[Tensor, Tensor] = {}
        for parameter in self.trained:
            parameter.register_post_accumulate_grad_hook(self._accumulated)
        if processes > 1:
            self._broadcast()
            self._make_buckets(list(reversed(self.trained)))

    def forward(self, *args: Any) -> Any:
        if self.ready and torch.is_grad_enabled():
            self.views = {}  # the old ones go before the new ones come
            self._make_buckets(self.ready)
            self.ready = None
        return self.module(*args)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """The passes in here keep their gradients to themselves."""
        self.shares = False
        try:
            yield
        finally:
            self.shares = True

    def _accumulated(self, parameter: Tensor) -> None:
        grad = parameter.grad
        assert grad is not None
        if not self.shares:
            self.tracker.add([grad], "accumulated gradients")
        elif not self.views:
            if self.tracker.part_of(grad) != "accumulated gradients":
                self.tracker.add([grad], "gradients")
        else:
            view = self.views[parameter]
            view.copy_(grad)
            parameter.grad = view
            if self.ready is not None:
                self.ready.append(parameter)

    def _make_buckets(self, parameters: list[Tensor]) -> None:
        indices, _ = dist._compute_bucket_assignment_by_size(parameters, [FIRST_BUCKET, BUCKET])
        for index in indices:
            members = [parameters[i] for i in index]
            flat = torch.zeros(sum(member.numel() for member in members), dtype=members[0].dtype)
            self.tracker.add([flat], "DDP buckets")
            offset = 0
            for member in members:
                self.views[member] = flat.as_strided(member.size(), member.stride(), offset)
                offset += member.numel()

    def _broadcast(self) -> None:
        tensors = [tensor.detach() for tensor in (*self.module.parameters(), *self.module.buffers())]
        indices, _ = dist._compute_bucket_assignment_by_size(tensors, [BROADCAST])
        under_way: deque[Tensor] = deque(maxlen=BROADCASTS_AT_ONCE)
        for index in indices:
            under_way.append(torch.cat([tensors[i].reshape(-1) for i in index]))
