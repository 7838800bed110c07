"""What torch's operations take on a CUDA device besides their results, of which a trace on the CPU shows nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.tracker import Tracker

Capability = tuple[int, int]

PRODUCTS = (torch.ops.aten.addmm.default, torch.ops.aten.mm.default)
# Settings of CUBLAS_WORKSPACE_CONFIG are pairs of KiB and how many.
WORKSPACE = ":4096:2:16:8"
WORKSPACE_SINCE_HOPPER = ":32768:1"
SINCE_HOPPER = 9


class Scratch:
    """Told of a training's operations; has the tracker count what they take on a device of this compute capability."""

    def __init__(self, tracker: Tracker, capability: Capability | None) -> None:
        self.tracker = tracker
        self.workspace_bytes = workspace_bytes(capability)
        self.threads: set[bool] = set()

    def __call__(self, operation: Any, args: Any, results: Any) -> Sequence[int]:
        """`transient_bytes` of the operation. cuBLAS's workspace is taken by each thread's first product, and stays."""
        backward = torch._C._current_graph_task_id() != -1  # which runs in a thread, and with a handle, of its own
        if operation in PRODUCTS and backward not in self.threads:
            self.threads.add(backward)
            self.tracker.add_bytes(self.workspace_bytes, "workspace")
        if operation is torch.ops.aten.index.Tensor:
            return index_bytes(args)
        if operation is torch.ops.aten._upsample_bilinear2d_aa.default:
            return resize_bytes(args[0], results)
        return ()


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
    """For picking by several indices, which the kernel wants in one layout (make_info in TensorAdvancedIndexing.cpp)."""
    indices = [each for each in args[1] if isinstance(each, Tensor)]
    shape = torch.broadcast_shapes(*(each.shape for each in indices))
    layouts = {each.expand(shape).stride() for each in indices}
    return () if len(layouts) == 1 else [each.element_size() * shape.numel() for each in indices]


def resize_bytes(images: Tensor, resized: Tensor) -> Sequence[int]:
    """For resizing with antialiasing, whose kernel knows contiguous images alone (UpSampleBilinear2d.cu)."""
    return [each.numel() * each.element_size() for each in (resized, images) if not each.is_contiguous()]
