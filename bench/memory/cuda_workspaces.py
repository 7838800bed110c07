"""The scratch memory of torch's operations on a CUDA device, which a trace on a CPU does not show."""

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

from bench.instruments.recomputation import in_backward
from bench.instruments.storage_tracker import Sizes, StorageTracker

Capability = tuple[int, int]

aten = torch.ops.aten
PRODUCTS = (aten.addmm.default, aten.mm.default, aten.bmm.default, aten.affine_grid_generator.default)
# torch's defaults, in the form of CUBLAS_WORKSPACE_CONFIG: pairs of KiB and count.
WORKSPACE = ":4096:2:16:8"
WORKSPACE_SINCE_HOPPER = ":32768:1"
SINCE_HOPPER = 9


class FusedDropout(TorchFunctionMode):
    """While entered, dropout is a single operation with a mask of bytes, as on CUDA."""

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
    """The `transient_bytes` of a tracker, for a device of this compute capability."""

    def __init__(self, tracker: StorageTracker, capability: Capability | None) -> None:
        self.tracker = tracker
        self.workspace_bytes = workspace_bytes(capability)
        self.threads: set[bool] = set()

    def __call__(self, operation: Any, args: Any, results: Any) -> Sizes:
        """The operation's scratch memory. Each thread's first product also takes a cuBLAS workspace, which stays."""
        backward = in_backward()  # it runs in its own thread, with its own cuBLAS handle
        if operation in PRODUCTS and backward not in self.threads:
            self.threads.add(backward)
            self.tracker.add_bytes(self.workspace_bytes, "workspace")
        if operation is aten.index.Tensor:
            return index_bytes(args), ()
        if operation is aten._upsample_bilinear2d_aa.default:
            return (), resize_bytes(args[0], results)
        if operation is aten.affine_grid_generator.default:  # the base of the grid: a third coordinate, all 1
            return [results.nbytes // 2 * 3], ()
        if operation is aten.native_batch_norm.default and args[5]:
            return (), batch_norm_bytes(args[0], sums=4)
        if operation is aten.native_batch_norm_backward.default and args[7]:
            return batch_norm_bytes(args[1], sums=2), ()
        return (), ()


def workspace_bytes(capability: Capability | None, environment: Mapping[str, str] = os.environ) -> int:
    """The size of cuBLAS's workspace, which torch takes from its caching allocator for each handle.

    If the capability is unknown, the larger size: a plan has to fit. torch 2.14's CublasHandlePool.cpp takes the larger
    one from compute capability 9.0 on; earlier versions take it on 9.0 only, and less on newer devices.
    """
    newer = capability is None or capability[0] >= SINCE_HOPPER
    pairs = re.findall(r":([0-9]+):([0-9]+)", environment.get("CUBLAS_WORKSPACE_CONFIG", ""))
    pairs = pairs or re.findall(r":([0-9]+):([0-9]+)", WORKSPACE_SINCE_HOPPER if newer else WORKSPACE)
    return sum(int(kib) * 1024 * int(count) for kib, count in pairs)


def index_bytes(args: Any) -> Sequence[int]:
    """Of indexing with several index tensors, which the kernel expands to one layout.

    Source: make_info in TensorAdvancedIndexing.cpp.
    """
    indices = [each for each in args[1] if isinstance(each, Tensor)]
    shape = torch.broadcast_shapes(*(each.shape for each in indices))
    layouts = {each.expand(shape).stride() for each in indices}
    return () if len(layouts) == 1 else [each.element_size() * shape.numel() for each in indices]


def resize_bytes(images: Tensor, resized: Tensor) -> Sequence[int]:
    """Of resizing with antialiasing, whose kernel copies images that are not contiguous (UpSampleBilinear2d.cu)."""
    return [each.nbytes for each in (resized, images) if not each.is_contiguous()]


def batch_norm_bytes(images: Tensor, sums: int) -> Sequence[int]:
    """Of batch statistics over channels_last images in bf16: `sums` for each channel and block of rows, and flags.

    cuDNN handles other formats. The numbers are those of flexible_launch_configs in torch's Normalization.cuh.
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
    """The largest power of two that is not larger than the number."""
    return 1 << (number.bit_length() - 1)
