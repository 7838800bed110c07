"""What oneDNN's convolutions, which torch uses on a CPU, take while they run and give back before they return.

They work in blocked layouts of their own: weights are reordered into them and, unless the images are channels_last, the
images too; of grouped convolutions, the channels of a group are filled up to a multiple of 16 for the weights' gradient.
Found by watching the allocations of single convolutions, fp32 and bf16, on x86 with AVX-512. The kernels' scratch
memory, which depends on the CPU, is not in it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

BLOCK = 16


def transient_bytes(operation: Any, args: Any, results: Any) -> int:
    """The most that the operation holds beyond its results; 0 for all but convolutions."""
    if operation is torch.ops.aten.convolution.default:
        images, weight, groups = args[0], args[1], args[8]
        if images.is_contiguous(memory_format=torch.channels_last):
            return _bytes(weight)
        return max(_bytes(images) + _bytes(weight), _bytes(results))
    if operation is torch.ops.aten.convolution_backward.default:
        grad, images, weight, groups = args[0], args[1], args[2], args[9]
        reordered = _bytes(weight) + _blocked_bytes(weight, groups)
        if images.is_contiguous(memory_format=torch.channels_last):
            return reordered
        return _bytes(grad) + (_bytes(images) if results[0] is not None else 0)
    return 0


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _blocked_bytes(weight: Tensor, groups: int) -> int:
    """Of weights (O, C / groups, K, K)."""
    if groups == 1:
        return _bytes(weight)
    out, channels = weight.shape[0] // groups, weight.shape[1]
    filled = [math.ceil(count / BLOCK) * BLOCK for count in (out, channels)]
    return _bytes(weight) * filled[0] * filled[1] // (out * channels)
