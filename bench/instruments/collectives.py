"""What processes say to each other while they train: counted from the operations themselves, and timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Collectives(TorchDispatchMode):
    """While entered, counts this process's collectives, and of its all-reduces the bytes that it gives to each.

    Costs time for every operation of any kind.
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
                tensors = [leaf for leaf in tree_leaves(args[0]) if isinstance(leaf, Tensor)]
                self.allreduces += 1
                self.allreduce_bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return func(*args, **(kwargs or {}))


def in_group() -> bool:
    """Whether this process is in a group; a torch that was built without distributed knows none, nor most names."""
    return dist.is_available() and dist.is_initialized()


def several_processes() -> bool:
    """Whether this process is in a group with others."""
    return in_group() and dist.get_world_size() > 1


def sequence_number() -> int:
    """How many collectives the group has begun, as its backend counts them; reading it costs nothing."""
    group: Any = dist.distributed_c10d._get_default_group()
    return group._get_sequence_number_for_group()


def when_computed(loss: Tensor, then: Callable[[], None]) -> None:
    """Have `then` called in the backward pass of this loss, when all gradients of this process have been computed.

    DDP waits for the other processes only after that: autograd calls back in the order in which it was asked to, and
    DDP asks when its last bucket is full. On CUDA, `then` runs with the stream current that DDP will make wait.
    """

    def ask(_: Tensor) -> None:
        torch.autograd.Variable._execution_engine.queue_callback(then)

    loss.register_hook(ask)
