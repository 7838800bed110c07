"""Collectives: counted as the operations that they are, and the moment at which DDP starts to wait for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.instruments.storage_tracker import tensors


class Collectives(TorchDispatchMode):
    """While entered, counts this process's collectives, its all-reduces, and the bytes that it gives to all-reduces.

    Slows down every operation, of any kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.all = self.allreduces = self.allreduce_bytes = 0

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled code stays compiled."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            self.all += 1
            if func._schema.name.startswith("c10d::allreduce"):
                self.allreduces += 1
                self.allreduce_bytes += sum(each.nbytes for each in tensors(args[0]))
        return func(*args, **(kwargs or {}))


def in_group() -> bool:
    """Whether this process is in a group. Also works on a torch that is built without distributed."""
    return dist.is_available() and dist.is_initialized()


def several_processes() -> bool:
    """Whether this process is in a group with others."""
    return in_group() and dist.get_world_size() > 1


def sequence_number() -> int:
    """How many collectives the group has begun, by its backend's own count. Reading it takes no collective."""
    group: Any = dist.distributed_c10d._get_default_group()
    return group._get_sequence_number_for_group()


def when_computed(loss: Tensor, callback: Callable[[], None]) -> None:
    """Call back in this loss's backward pass, when this process has computed all its gradients.

    DDP waits for the other processes after that: autograd runs callbacks in the order in which they were queued. This
    one is queued at the start of the backward pass, DDP's when its last bucket is full. On CUDA the current stream is
    then the one that DDP makes wait.
    """

    def queue(_: Tensor) -> None:
        torch.autograd.Variable._execution_engine.queue_callback(callback)

    loss.register_hook(queue)
