"""Operations on fake tensors, each run once for arguments of the same sizes.

torch takes long to run one on fake tensors, also to find it in its own cache, and a deep network repeats few of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager

from bench.instruments.storage_tracker import tensors

aten = torch.ops.aten
# Of operations whose results differ each time in size, and of those that change their arguments' sizes.
VARYING = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.inplace_view)


class New(NamedTuple):
    """A result with a storage of its own."""

    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class Unknown(Exception):
    """What an operation returns, or is given, is more than sizes."""


# Of each result: how to make it; or which argument it is; or None.
Results = tuple[New | int | None, ...]


class KnownOperations:
    """Calls operations in a fake tensor mode. The results are those of the mode, new ones each time.

    `known`, which all traces of a process share: whether the operation returns a tuple, and its results; None: it has
    to be run each time.
    """

    known: ClassVar[dict[Any, tuple[bool, Results] | None]] = {}

    def __init__(self, mode: FakeTensorMode) -> None:
        self.mode = mode
        mode.cache_enabled = False  # to describe arguments for it takes longer than to run most operations

    def __call__(self, operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The operation's result."""
        if operation is torch.ops.prim.device.default:  # autograd asks for the device of each tensor
            return args[0].fake_device
        try:
            key = (operation, _described(args), _described(tuple(kwargs.items())))
        except Unknown:
            return operation(*args, **kwargs)
        if operation is aten._fused_sgd_.default:  # torch would run it on real zeros, to find that it returns nothing
            return None
        if operation is aten.detach.default:
            with in_kernel_invocation_manager(self.mode):
                return FakeTensor(self.mode, operation(*args), args[0].fake_device)
        if key not in self.known:
            out = operation(*args, **kwargs)
            self.known[key] = self._learned(operation, args, kwargs, out)
            return out
        known = self.known[key]
        if known is None:
            return operation(*args, **kwargs)
        several, results = known
        if several:
            return tuple(self._made(result, args) for result in results)
        return self._made(results[0], args)

    def _made(self, result: New | int | None, args: Sequence[Any]) -> Any:
        if not isinstance(result, New):
            return None if result is None else args[result]
        size, stride, dtype, device = result
        with torch._C._DisableTorchDispatch():
            return FakeTensor(self.mode, torch.empty_strided(size, stride, dtype=dtype, device="meta"), device)

    def _learned(
        self, operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
    ) -> tuple[bool, Results] | None:
        if operation.namespace != "aten" or any(tag in operation.tags for tag in VARYING):
            return None
        several = isinstance(out, tuple)
        shared = {each.untyped_storage()._cdata for each in tensors((args, kwargs))}
        try:
            return several, tuple(self._result(each, args, shared) for each in (out if several else (out,)))
        except Unknown:
            return None

    def _result(self, out: Any, args: Sequence[Any], shared: set[int]) -> New | int | None:
        """How this result comes about. `shared`: storages of the arguments, which a view of one shares."""
        if out is None:
            return None
        for index, argument in enumerate(args):
            if argument is out:
                return index
        if type(out) is not FakeTensor or out.constant is not None or out.requires_grad:
            raise Unknown
        result = New(out.shape, out.stride(), out.dtype, out.fake_device)
        storage = out.untyped_storage()
        if storage._cdata in shared or storage.nbytes() != self._made(result, args).untyped_storage().nbytes():
            raise Unknown
        shared.add(storage._cdata)
        return result


def _described(value: Any) -> Any:
    """What the results depend on. Raises Unknown if that is more than sizes, such as an argument's value."""
    if isinstance(value, FakeTensor):
        if value.constant is not None:
            raise Unknown
        return value.shape, value.stride(), value.storage_offset(), value.dtype, value.fake_device
    if isinstance(value, (list, tuple)):
        return tuple([_described(each) for each in value])
    if isinstance(value, (Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, torch.Generator, dict)):
        raise Unknown
    return value.__class__, value  # 1, 1.0 and True are equal
