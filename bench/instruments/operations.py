"""Counts of the operations that a process dispatches to torch: by kind, their FLOPs, bytes, casts, waits and memory."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.instruments.memory_traffic import bytes_accessed
from bench.instruments.recomputation import recomputing
from bench.instruments.storage_tracker import StorageTracker, tensors

# Operations whose result the host needs, so that it waits for the device: .item() and float() of a tensor become the
# first. A copy from or to memory that is not pinned waits too (see `blocks`). On a CPU, .tolist() and .cpu() dispatch
# no operation and are not counted.
WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal")
CASTS = ("aten::_to_copy", "aten::copy_")


class Operations(TorchDispatchMode):
    """While entered, counts operations by kind. Slows each of them down.

    `flops`: two for each multiply-add of convolutions and matrix products, by torch's own formulas; other operations
    count as none. Torch counts the weights' gradients of a convolution with groups as if it had one group: not so here.
    `recomputed_flops`: those of them that a backward pass computes again. `bytes_accessed`: by type of device, what all
    of them read and write, as bench.instruments.memory_traffic counts it. Of compiled code only what is outside its
    fused kernels is counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kinds: Counter[str] = Counter()
        self.flops = self.recomputed_flops = self.casts = self.blocking_copies = 0
        self.bytes_accessed: Counter[str] = Counter()
        self._storages = StorageTracker()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Run compiled code as it is, instead of operation by operation."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = func._schema.name
        self.kinds[kind] += 1
        if kind in CASTS:
            self.casts += target_dtype(kind, args, kwargs) not in (None, source_dtype(kind, args))
        result = func(*args, **kwargs)
        if kind in CASTS:
            self.blocking_copies += blocks(kind, args, kwargs, result)
        flops = 0
        if kind == "aten::convolution_backward":
            flops = convolution_backward_flops(*args, **kwargs)
        elif count := flop_registry.get(func._overloadpacket):
            flops = count(*args, **kwargs, out_val=result)
        self.flops += flops
        self.recomputed_flops += flops if recomputing() else 0
        self.bytes_accessed += bytes_accessed(func, args, kwargs, result)
        inputs = {tensor.untyped_storage()._cdata for tensor in tensors((args, kwargs))}
        self._storages.add(output for output in tensors(result) if output.untyped_storage()._cdata not in inputs)
        return result

    @property
    def waits(self) -> int:
        """How often the process waited for the device."""
        return sum(self.kinds[kind] for kind in WAITS) + self.blocking_copies

    @property
    def peak_bytes(self) -> int:
        """Peak bytes of the tensors that these operations made. Earlier tensors are not included."""
        return self._storages.peak_bytes()

    def by_kind(self) -> str:
        """The counts as text, such as "add 12, convolution 40"; torch's own kinds without their prefix "aten::"."""
        return ", ".join(f"{kind.removeprefix('aten::')} {count}" for kind, count in sorted(self.kinds.items()))


def convolution_backward_flops(grad: Tensor, images: Tensor, weight: Tensor, *others: Any) -> int:
    """FLOPs of a convolution's gradients, by the arguments of aten::convolution_backward.

    Those of its input and of its weights take as many each as its output does.
    """
    transposed, wanted = others[4], others[7]  # of input, weights and bias
    batch, _, *places = images.shape if transposed else grad.shape
    return 2 * sum(wanted[:2]) * batch * math.prod(places) * weight.numel()


def _source(kind: str, args: Any) -> Any:
    """What a copy copies: a tensor, or a number."""
    return args[1] if kind == "aten::copy_" else args[0]


def blocks(kind: str, args: Any, kwargs: Any, result: Any) -> bool:
    """Whether a copy made the host wait: one between host and device, unless it is non-blocking to pinned memory."""
    pair = (_source(kind, args), result)
    hosts = [each for each in pair if isinstance(each, Tensor) and each.device.type == "cpu"]
    if len(hosts) != 1 or not all(isinstance(each, Tensor) for each in pair):
        return False
    non_blocking = args[2] if kind == "aten::copy_" and len(args) > 2 else kwargs.get("non_blocking", False)
    return not (non_blocking and hosts[0].is_pinned())


def target_dtype(kind: str, args: Any, kwargs: Any) -> torch.dtype | None:
    """The number format that a copy casts to; None: it keeps its format."""
    return args[0].dtype if kind == "aten::copy_" else kwargs.get("dtype")


def source_dtype(kind: str, args: Any) -> torch.dtype | None:
    """The number format of what is copied; None: a plain number."""
    source = _source(kind, args)
    return source.dtype if isinstance(source, Tensor) else None
