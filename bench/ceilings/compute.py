"""Matrix products and convolutions at each number format: the calls, and the FLOPs of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from bench.instruments.operations import Operations
from bench.machine import backends
from bench.trial import Trial

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Layer:
    """A square convolution: its inputs are (N, inputs, pixels, pixels)."""

    network: str
    kernel: int
    stride: int
    inputs: int
    outputs: int
    pixels: int

    def name(self) -> str:
        """Such as "ResNet-20: 3x3, 16 to 32 channels, 32 pixels, stride 2"."""
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        channels = f"{self.inputs} to {self.outputs} channels"
        return f"{self.network}: {self.kernel}x{self.kernel}, {channels}, {self.pixels} pixels{stride}"


# ResNet-20's first stage, and what leads to its second (He et al. 2015, section 4.2; the 1x1 is the projection). Of
# torchvision's ResNet-50 and -152 the third stage, which has 36 of ResNet-152's 50 blocks.
SMALL_IMAGES = (
    Layer("ResNet-20", 1, 2, 16, 32, 32),
    Layer("ResNet-20", 3, 1, 16, 16, 32),
    Layer("ResNet-20", 3, 2, 16, 32, 32),
)
LARGE_IMAGES = (
    Layer("ResNet-50/152", 1, 1, 1024, 256, 14),
    Layer("ResNet-50/152", 3, 1, 256, 256, 14),
    Layer("ResNet-50/152", 3, 2, 256, 256, 28),
)


def number_formats(device: torch.device) -> list[str]:
    """The number formats that trials may have on this device."""
    if device.type != "cuda":
        return ["fp32", "bf16"]
    with torch.cuda.device(device):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    tf32 = backends.why_no_tf32(device) is None
    return ["fp32", *(["tf32"] if tf32 else []), "fp16", *(["bf16"] if bf16 else [])]


def allow(number_format: str, device: torch.device) -> None:
    """Have float32 computed in this format, and cuDNN choose its fastest algorithms: at most is what is asked for."""
    if device.type == "cuda":
        backends.apply(Trial(tf32=number_format == "tf32", cudnn_benchmark=True))


def matrix_product(size: int, number_format: str, device: torch.device) -> tuple[Callable[[], Any], int]:
    """(the call, its FLOPs): a product of two square matrices (size, size)."""
    left, right, product = (torch.randn(size, size, device=device).to(DTYPES[number_format]) for _ in range(3))
    return lambda: torch.mm(left, right, out=product), 2 * size**3


def convolution(layer: Layer, batch: int, number_format: str, device: torch.device) -> tuple[Callable[[], Any], int]:
    """(the call, its FLOPs as the suite counts them): forward, and backward to the input and to the weights.

    Counted as a direct convolution: an algorithm that needs fewer multiplications, such as Winograd's, may seem to
    compute more than the device can.
    """

    def tensor(*shape: int) -> torch.Tensor:
        random = torch.randn(*shape, device=device).to(DTYPES[number_format], memory_format=torch.channels_last)
        return random.requires_grad_()

    images = tensor(batch, layer.inputs, layer.pixels, layer.pixels)
    weights = tensor(layer.outputs, layer.inputs, layer.kernel, layer.kernel)
    padding = layer.kernel // 2
    gradient = torch.ones_like(F.conv2d(images, weights, stride=layer.stride, padding=padding))

    def call() -> Any:
        outputs = F.conv2d(images, weights, stride=layer.stride, padding=padding)
        return torch.autograd.grad(outputs, (images, weights), gradient)

    with Operations() as counted:
        call()
    return call, counted.flops
