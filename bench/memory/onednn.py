"""The scratch memory of oneDNN's convolutions, which torch uses on a CPU.

oneDNN computes in blocked layouts of its own. It reorders the weights into them and, unless they are channels_last, the
images too. For the weights' gradient of a grouped convolution, each group's channels are padded to a multiple of 16;
in half precision one image and one gradient are padded as well; depthwise kernels of up to 3x3 need none of that.

The formulas come from watching the allocations of single convolutions, in fp32 and bf16, on x86 with AVX-512 and AMX.
Further scratch memory of the kernels depends on the CPU and is not included.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bench.instruments.storage_tracker import Sizes

BLOCK = 16  # channels
# Compiled code and its data, for each distinct convolution and direction. Measured as the growth of the process in a
# first step, less its tensors: 0.78 MiB in ResNet-20 and 0.90 in ResNet-50 in fp32, 1.56 and 1.12 in bf16. It counts
# against a memory limit, though no tensor allocates it.
CODE_BYTES = {torch.float32: int(0.8 * 2**20), torch.bfloat16: int(1.3 * 2**20)}
# The share of it that a second size of micro-batch adds: some kernels serve both (0.71 in ResNet-8, fp32).
SECOND_SIZE = 0.7


class OneDNNWorkspaces:
    """The `transient_bytes` of a tracker, for training on a CPU. Remembers which convolutions there were."""

    def __init__(self) -> None:
        self.distinct: set[Any] = set()

    def __call__(self, operation: Any, args: Any, results: Any) -> Sizes:
        """The operation's scratch memory."""
        transient = transient_bytes(operation, args, results)
        if transient:
            tensors = [(tuple(part.shape), part.dtype) for part in args if isinstance(part, Tensor)]
            settings = [str(part) for part in args if not isinstance(part, Tensor)]
            self.distinct.add((operation, *tensors, *settings))
        return (), ((transient,) if transient else ())

    def code_bytes(self, epochs: int) -> int:
        """What oneDNN's compiled kernels take: one for each convolution forward, two backward.

        From the second epoch on, kernels for the epoch's last, shorter micro-batch are in memory too.
        """
        kernels = [2 if op is torch.ops.aten.convolution_backward.default else 1 for op, *_ in self.distinct]
        dtypes = [tensor[1] for _, tensor, *_ in self.distinct]
        once = sum(n * CODE_BYTES.get(dtype, 0) for n, dtype in zip(kernels, dtypes, strict=True))
        return round(once * (1 + SECOND_SIZE if epochs > 1 else 1))


def transient_bytes(operation: Any, args: Any, results: Any) -> int:
    """Peak bytes that the operation takes beyond its results; 0 for all but convolutions."""
    if operation is torch.ops.aten.convolution.default:
        images, weight = args[0], args[1]
        if images.is_contiguous(memory_format=torch.channels_last):
            return weight.nbytes  # reordered
        return max(images.nbytes + weight.nbytes, results.nbytes)  # inputs and output are reordered one after another
    if operation is torch.ops.aten.convolution_backward.default:
        grad, images, weight, groups = args[0], args[1], args[2], args[9]
        if not images.is_contiguous(memory_format=torch.channels_last):
            return grad.nbytes + (images.nbytes if results[0] is not None else 0)
        return weight.nbytes + (weight.nbytes if groups == 1 else _grouped_bytes(grad, images, weight, groups))
    return 0


def _grouped_bytes(grad: Tensor, images: Tensor, weight: Tensor, groups: int) -> int:
    """What the gradient of the weights (O, C / groups, K, K) takes beyond the weights' own size."""
    out, channels, *kernel = weight.shape
    if channels == 1 and max(kernel) <= 3:
        return 0
    out, channels = (groups * _padded(count) for count in (out // groups, channels))
    weights = out * channels // groups * math.prod(kernel)
    if weight.dtype == torch.float32:
        return weights * 4
    # In half precision: the padded gradient and its sum in float32, one image with its padding, one image's gradient.
    rows, columns = images.shape[2], images.shape[3] + kernel[1] - 1
    return weights * (2 + 4) + (channels * rows * columns + out * math.prod(grad.shape[2:])) * 2


def _padded(channels: int) -> int:
    return math.ceil(channels / BLOCK) * BLOCK
