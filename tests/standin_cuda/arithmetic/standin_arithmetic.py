"""Gives the stand-in GPU the CPU's arithmetic: each CUDA operation is computed by its CPU kernel on the same bytes."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map

# What makes or moves storage, or only looks at it, is right as CUDA does it. cuDNN's own operations have no twin.
KEPT = (
    "aten::empty",
    "aten::set_",
    "aten::resize",
    "aten::record_stream",
    "aten::_local_scalar_dense",
    "aten::view",
    "aten::as_strided",
    "aten::_reshape_alias",
    "aten::is_pinned",
    "aten::_pin_memory",
    "aten::unfold",
    "aten::alias",
    "aten::_foreach_",
    "aten::_cudnn",
    "aten::cudnn",
)
# Have one kernel for all devices, which asks for the device's own.
MORE = {"aten::convolution", "aten::convolution_backward", "aten::copy_"}
_library: Any = None
_reach = ctypes.CDLL(None).standin_reach
_reach.argtypes, _reach.restype = (ctypes.c_void_p,), None


def install() -> None:
    """Replace the CUDA kernels of this process. cuDNN, which has no arithmetic, is switched off."""
    global _library
    _library = torch.library.Library("aten", "IMPL")
    both = {key: set(torch._C._dispatch_get_registrations_for_dispatch_key(key)) for key in ("CUDA", "CPU")}
    for name in sorted((both["CUDA"] & both["CPU"]) | MORE):
        if not name.startswith("aten::") or name.startswith(KEPT):
            continue
        base, _, overload = name.removeprefix("aten::").partition(".")
        if (packet := getattr(torch.ops.aten, base, None)) is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a kernel is replaced
            _library.impl(name.removeprefix("aten::"), on_the_cpu(getattr(packet, overload or "default")), "CUDA")
    torch.backends.cudnn.enabled = False


def on_the_cpu(operation: Any) -> Callable[..., Any]:
    """The operation for CUDA tensors: its results are new CUDA tensors, but for arguments that it gives back."""
    outs = [argument.name for argument in operation._schema.arguments if argument.is_out]
    kinds = [str(argument.type) for argument in operation._schema.arguments]

    def run(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs[name] for name in outs if isinstance(kwargs.get(name), torch.Tensor)}
        fresh = {name: torch.empty(0, dtype=tensor.dtype) for name, tensor in given.items()}
        known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        device = None

        def down(value: Any) -> Any:
            nonlocal device
            if isinstance(value, torch.Tensor) and value.is_cuda:
                device = value.device
                twin = on_host(value)
                known[id(twin)] = twin, value
                return twin
            return torch.device("cpu") if isinstance(value, torch.device) and value.type == "cuda" else value

        args, kwargs = tree_map(down, (args, {**kwargs, **fresh}))
        # A number where the operation wants a tensor was unwrapped on its way here.
        words = [
            torch.tensor(value) if kind == "Tensor" and type(value) in (int, float) else value
            for value, kind in zip(args, kinds, strict=False)
        ]
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        if device is not None:
            _reach(torch._C._cuda_getCurrentRawStream(device.index))  # the collective that it comes after
        found = operation(*words, **kwargs)
        if given:
            results = found if isinstance(found, (tuple, list)) else (found,)
            for tensor, value in zip(given.values(), results, strict=True):
                tensor.resize_(value.size())
                on_host(tensor).copy_(value)
            return tuple(given.values()) if len(given) > 1 else next(iter(given.values()))

        def up(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if id(value) in known:
                return known[id(value)][1]
            made = torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=device or "cuda")
            if value.numel():
                on_host(made).copy_(value)
            return made

        return tree_map(up, found)

    return run


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """A CPU tensor over the same bytes."""
    storage = tensor.untyped_storage()
    bytes_ = torch._C._construct_storage_from_data_pointer(storage.data_ptr(), torch.device("cpu"), storage.nbytes())
    return torch.empty(0, dtype=tensor.dtype).set_(bytes_, tensor.storage_offset(), tensor.size(), tensor.stride())
