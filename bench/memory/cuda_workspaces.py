"""What torch's operations take on a CUDA device besides their results, of which a trace on the CPU shows nothing."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench.instruments.storage_tracker import Sizes, StorageTracker

Capability = tuple[int, int]

aten = torch.ops.aten
PRODUCTS = (aten.addmm.default, aten.mm.default, aten.bmm.default, aten.affine_grid_generator.default)
# Settings of CUBLAS_WORKSPACE_CONFIG are pairs of KiB and how many.
WORKSPACE = ":4096:2:16:8"
WORKSPACE_SINCE_HOPPER = ":32768:1"
SINCE_HOPPER = 9


class FusedDropout(TorchFunctionMode):
    """While entered, dropout is the one operation that it is on CUDA, with a mask of bytes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.dropout:
            return dropout(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def dropout(images: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """As F.dropout on CUDA."""
    if training and 0 < p < 1 and not inplace:
        return torch.native_dropout(images, p, training)[0]
    return F.dropout(images, p, training, inplace)


class CudaWorkspaces:
    """Told of a training's operations; has the tracker count what they take on a device of this compute capability."""

    def __init__(self, tracker: StorageTracker, capability: Capability | None) -> None:
        self.tracker = tracker
        self.workspace_bytes = workspace_bytes(capability)
        self.threads: set[bool] = set()

    def __call__(self, operation: Any, args: Any, results: Any) -> Sizes:
        """`transient_bytes` of the operation. cuBLAS's workspace is taken by each thread's first product, and stays."""
        backward = torch._C._current_graph_task_id() != -1  # which runs in a thread, and with a handle, of its own
        if operation in PRODUCTS and backward not in self.threads:
            self.threads.add(backward)
            self.tracker.add_bytes(self.workspace_bytes, "workspace")
        if operation is aten.index.Tensor:
            return index_bytes(args), ()
        if operation is aten._upsample_bilinear2d_aa.default:
            return (), resize_bytes(args[0], results)
        if operation is aten.affine_grid_generator.default:  # the base of the grid: a third coordinate, all 1
            return [size_of(results) // 2 * 3], ()
        if operation is aten.native_batch_norm.default and args[5]:
            return (), batch_norm_bytes(args[0], sums=4)
        if operation is aten.native_batch_norm_backward.default and args[7]:
            return batch_norm_bytes(args[1], sums=2), ()
        return (), ()


def workspace_bytes(capability: Capability | None, environment: Mapping[str, str] = os.environ) -> int:
    """cuBLAS's workspace, which torch takes from its caching allocator for each handle.

    Of a device whose capability is not known, the larger: what is planned has to fit. torch 2.14's CublasHandlePool.cpp
    takes it from compute capability 9.0 on; earlier versions take it on 9.0 alone, and less on newer devices.
    """
    newer = capability is None or capability[0] >= SINCE_HOPPER
    pairs = re.findall(r":([0-9]+):([0-9]+)", environment.get("CUBLAS_WORKSPACE_CONFIG", ""))
    pairs = pairs or re.findall(r":([0-9]+):([0-9]+)", WORKSPACE_SINCE_HOPPER if newer else WORKSPACE)
    return sum(int(kib) * 1024 * int(count) for kib, count in pairs)


def index_bytes(args: Any) -> Sequence[int]:
    """For picking by several indices, which the kernel wants in one layout (TensorAdvancedIndexing.cpp, make_info)."""
    indices = [each for each in args[1] if isinstance(each, Tensor)]
    shape = torch.broadcast_shapes(*(each.shape for each in indices))
    layouts = {each.expand(shape).stride() for each in indices}
    return () if len(layouts) == 1 else [each.element_size() * shape.numel() for each in indices]


def resize_bytes(images: Tensor, resized: Tensor) -> Sequence[int]:
    """For resizing with antialiasing, whose kernel knows contiguous images alone (UpSampleBilinear2d.cu)."""
    return [size_of(each) for each in (resized, images) if not each.is_contiguous()]


def batch_norm_bytes(images: Tensor, sums: int) -> Sequence[int]:
    """For statistics over channels_last images in bf16: `sums` for each channel and block of rows, and flags.

    Of other formats cuDNN takes care. flexible_launch_configs in torch's Normalization.cuh says how many blocks.
    """
    channels = images.shape[1] if images.dim() == 4 else 0
    by_cudnn = images.dtype != torch.bfloat16 and images.numel() < 2**31
    if by_cudnn or images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last):
        return ()
    rows = images.numel() // channels
    width = min(_power(channels), 32)
    height = min(_power(math.ceil(rows / 16)), 512 // width)
    if width * height != 512:
        width = min(_power(channels), 512 // height)
    blocks = min(math.ceil(rows / (height * 16)), 128)
    return (sums * channels * blocks * 4, math.ceil(channels / width) * 4) if blocks >= 8 else (0, 0)


def _power(number: int) -> int:
    """The highest power of two in it."""
    return 1 << (number.bit_length() - 1)


def size_of(tensor: Tensor) -> int:
    """Bytes of its elements."""
    return tensor.numel() * tensor.element_size()
