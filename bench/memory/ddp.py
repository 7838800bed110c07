"""A simulation of DistributedDataParallel's gradient buckets, in a single process and on tensors without data.

Gradients are views of flat buckets (gradient_as_bucket_view). Passes under `no_sync` leave theirs outside the buckets,
and the last pass of the window moves the sum in. The first window has a single bucket; after it, the buckets are made
anew. NCCL's group keeps the first bucket until gradients are shared the next time (or, if its watchdog runs just in
between, until the next collective). With gradient compression, a full bucket is shared as a bf16 copy, which is assumed
to last until the pass ends.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.instruments.storage_tracker import StorageTracker
from bench.trial import Trial

MIB = 2**20
# DDP's own sizes. With the default bucket size, the first bucket is smaller. At the start DDP broadcasts the model in
# flat copies of BROADCAST bytes.
FIRST_BUCKET = MIB
DEFAULT_BUCKET = 25 * MIB
BROADCAST = 250 * MIB
BROADCASTS_AT_ONCE = 2


@dataclass
class Bucket:
    """A flat bucket of `members` gradients, of which `ready` are computed, and the bf16 copy that is being shared."""

    flat: Tensor
    members: int
    ready: int = 0
    copy: Tensor | None = None


def bucket_limits(trial: Trial) -> list[int]:
    """The sizes in bytes of the first bucket and the others, once DDP knows the order of the gradients."""
    bucket = int(trial.bucket_mib * MIB)
    return [FIRST_BUCKET, bucket] if bucket == DEFAULT_BUCKET else [bucket]


class SimulatedDDP(nn.Module):
    """Wraps a module as DDP does; with one process it only reports gradients to the tracker."""

    def __init__(self, module: nn.Module, trial: Trial, tracker: StorageTracker) -> None:
        super().__init__()
        self.module, self.tracker = module, tracker
        self.bucket_limits = bucket_limits(trial)
        self.compressed = trial.gradient_compression == "bf16"
        self.shares = True
        self.ready: list[Tensor] | None = []  # parameters in the order of their gradients; None: buckets follow it
        self.trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.views: dict[Tensor, Tensor] = {}
        self.buckets: dict[Tensor, Bucket] = {}
        self.first: dict[Tensor, Bucket] = {}
        for parameter in self.trained:
            parameter.register_post_accumulate_grad_hook(self._accumulated)
        if trial.processes > 1:
            self._broadcast()
            # Before the first backward pass DDP does not know the order of the gradients, and makes one bucket.
            self._make_buckets(list(reversed(self.trained)), [sys.maxsize])

    def forward(self, *args: Any) -> Any:
        if self.ready and torch.is_grad_enabled():
            self.first = self.buckets if self.tracker.device is not None else {}  # NCCL keeps it, gloo does not
            self.views, self.buckets = {}, {}
            self._make_buckets(self.ready, self.bucket_limits)
            self.ready = None
        return self.module(*args)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """While entered, passes do not share their gradients."""
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
        elif not self.views:  # one process: no buckets
            if self.tracker.part_of(grad) != "accumulated gradients":
                self.tracker.add([grad], "gradients")
        else:
            view = self.views[parameter]
            view.copy_(grad)
            parameter.grad = view
            if self.ready is not None:
                self.ready.append(parameter)
            bucket = self.buckets[parameter]
            bucket.ready += 1
            if bucket.ready == bucket.members:
                self._share(bucket)

    def _share(self, bucket: Bucket) -> None:
        self.first = {}  # the next collective: NCCL's group releases the first bucket
        if self.compressed:
            bucket.copy = bucket.flat.to(torch.bfloat16)
            self.tracker.add([bucket.copy], "DDP buckets")
        if all(each.ready == each.members for each in self.buckets.values()):
            for each in self.buckets.values():
                each.copy, each.ready = None, 0

    def _make_buckets(self, parameters: list[Tensor], limits: list[int]) -> None:
        indices, _ = dist._compute_bucket_assignment_by_size(parameters, limits)
        for index in indices:
            members = [parameters[i] for i in index]
            flat = members[0].new_zeros(sum(member.numel() for member in members))
            self.tracker.add([flat], "DDP buckets")
            bucket = Bucket(flat, len(members))
            offset = 0
            for member in members:
                self.buckets[member] = bucket
                self.views[member] = flat.as_strided(member.size(), member.stride(), offset)
                offset += member.numel()

    def _broadcast(self) -> None:
        tensors = [tensor.detach() for tensor in (*self.module.parameters(), *self.module.buffers())]
        indices, _ = dist._compute_bucket_assignment_by_size(tensors, [BROADCAST])
        under_way: deque[Tensor] = deque(maxlen=BROADCASTS_AT_ONCE)  # an older copy is released
        for index in indices:
            under_way.append(torch.cat([tensors[i].reshape(-1) for i in index]))
