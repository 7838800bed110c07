"""The bytes that an operation accesses: what it reads and writes, as if nothing stayed in a cache.

Each tensor argument is read once and each result written once, as in XLA's "bytes accessed". What is changed in place
is read and written. A view and an allocation access nothing. Of a broadcast tensor, the elements that are stored count.

So this is the traffic of operations that run one after the other, unfused. What reaches the memory is less where a
cache still holds what the operation before wrote, and more where a kernel reads an argument twice or needs a workspace.
A compiled model has no such count: its fused kernels dispatch no operation. Collectives are left out: how often a
message goes through the memory depends on the algorithm, and allreduce_bytes_per_window has its size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bench.instruments.storage_tracker import tensors

COLLECTIVES = ("c10d::", "_c10d_functional::")
ALLOCATIONS = ("aten::empty", "aten::new_empty")  # and names that go on, such as empty_like
QUESTIONS = ("aten::is_pinned", "aten::record_stream")  # about a tensor, not its elements
# Their tensor gives shape and number format alone.
LIKE = tuple(f"aten::{name}_like" for name in ("zeros", "ones", "full", "rand", "randn", "randint"))
LIKE += tuple(f"aten::new_{name}" for name in ("zeros", "ones", "full"))
# They write their first argument and do not read it.
OVERWRITE = tuple(f"aten::{name}_" for name in ("zero", "fill", "copy", "uniform", "normal", "random", "bernoulli"))
OVERWRITE += ("aten::_foreach_zero_", "aten::_foreach_copy_")
# In training (argument 5) they write the running statistics (3 and 4), which their schema does not say.
BATCH_NORMS = ("aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::miopen_batch_norm")


def bytes_accessed(func: Any, args: Any, kwargs: Any, result: Any) -> Counter[str]:
    """Type of device -> bytes that this operation has read and written there."""
    name, found = func._schema.name, Counter[str]()
    if name.startswith((*COLLECTIVES, *ALLOCATIONS)) or name in QUESTIONS or torch.Tag.inplace_view in func.tags:
        return found
    inputs = {tensor.untyped_storage()._cdata for tensor in tensors((args, kwargs))}
    outputs = tensors(result)
    made = [tensor for tensor in outputs if tensor.untyped_storage()._cdata not in inputs]
    read, written = _arguments(func, args, kwargs)
    if outputs and not made and not written:  # a view
        return found
    for tensor in (*read, *written, *made):
        found[tensor.device.type] += stored_bytes(tensor)
    return found


def stored_bytes(tensor: Tensor) -> int:
    """Bytes of the elements in memory: those of a broadcast dimension (stride 0) are one."""
    if not tensor.numel():
        return 0
    stored = math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return min(stored * tensor.element_size(), tensor.untyped_storage().nbytes())


def _arguments(func: Any, args: Any, kwargs: Any) -> tuple[list[Tensor], list[Tensor]]:
    """(tensors that the operation reads, those that it writes); what it changes in place is in both."""
    name = func._schema.name
    read: list[Tensor] = []
    written: list[Tensor] = []
    for argument, value in _given(func, args, kwargs):
        writes = argument.alias_info is not None and argument.alias_info.is_write
        if argument.name == "grads" and kwargs.get("grad_scale") is None:
            writes = False  # a fused optimizer writes its gradients only to undo the loss's scale
        written += tensors(value) if writes else []
        overwritten = writes and (argument.is_out or name in OVERWRITE)
        read += [] if overwritten or name in LIKE else tensors(value)
    if name in BATCH_NORMS and args[5]:
        written += tensors(args[3:5])
    return read, written


def _given(func: Any, args: Any, kwargs: Any) -> Iterator[tuple[Any, Any]]:
    """Each argument of the schema that the call gives, with its value."""
    arguments = func._schema.arguments
    yield from zip(arguments, args, strict=False)
    yield from ((argument, kwargs[argument.name]) for argument in arguments if argument.name in kwargs)
