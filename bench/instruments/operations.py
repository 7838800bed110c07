"""What a process asks of torch: the operations that it dispatches, by kind, their FLOPs, casts and memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bench.instruments.storage_tracker import StorageTracker

# What .item() and float() of a tensor come to, and whatever else a device has to answer first; so does a copy from or
# to memory that is not pinned. On a CPU, .tolist() and .cpu() are no operations at all, and not seen.
WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal")
CASTS = ("aten::_to_copy", "aten::copy_")


class Operations(TorchDispatchMode):
    """While entered, counts operations by kind. Costs time for each of them.

    `flops`: two for each multiplication and addition of convolutions and matrix products, as torch's own counter has
    it; other operations have none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kinds: Counter[str] = Counter()
        self.flops = self.casts = self.blocking_copies = 0
        self._storages = StorageTracker()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled code stays compiled."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = func._schema.name
        self.kinds[kind] += 1
        if kind in CASTS:
            self.casts += cast_to(kind, args, kwargs) not in (None, cast_from(kind, args))
        result = func(*args, **kwargs)
        if kind in CASTS:
            self.blocking_copies += blocks(kind, args, kwargs, result)
        if count := flop_registry.get(func._overloadpacket):
            self.flops += count(*args, **kwargs, out_val=result)
        given = {tensor.untyped_storage()._cdata for tensor in tensors((args, kwargs))}
        self._storages.add(made for made in tensors(result) if made.untyped_storage()._cdata not in given)
        return result

    @property
    def waits(self) -> int:
        """Times that the process waited for the device."""
        return sum(self.kinds[kind] for kind in WAITS) + self.blocking_copies

    @property
    def peak_bytes(self) -> int:
        """Most bytes at once of the tensors that operations made: what was there before is not among them."""
        return self._storages.peak_bytes()

    def by_kind(self) -> str:
        """`add 12, convolution 40, ...`: kinds of torch's own (aten) by their bare name."""
        return ", ".join(f"{kind.removeprefix('aten::')} {count}" for kind, count in sorted(self.kinds.items()))


def tensors(values: Any) -> list[Tensor]:
    """All tensors in the arguments or the result of an operation."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def blocks(kind: str, args: Any, kwargs: Any, result: Any) -> bool:
    """Whether a copy made the host wait: between it and a device, unless asked not to and its memory is pinned."""
    source = args[1] if kind == "aten::copy_" else args[0]
    pair = (source, result)
    hosts = [each for each in pair if isinstance(each, Tensor) and each.device.type == "cpu"]
    if len(hosts) != 1 or not all(isinstance(each, Tensor) for each in pair):
        return False
    asked = args[2] if kind == "aten::copy_" and len(args) > 2 else kwargs.get("non_blocking", False)
    return not (asked and hosts[0].is_pinned())


def cast_to(kind: str, args: Any, kwargs: Any) -> torch.dtype | None:
    """The number format that a copy gives; None: that which it had."""
    return args[0].dtype if kind == "aten::copy_" else kwargs.get("dtype")


def cast_from(kind: str, args: Any) -> torch.dtype | None:
    """The number format of what is copied."""
    source = args[1] if kind == "aten::copy_" else args[0]
    return source.dtype if isinstance(source, Tensor) else None
