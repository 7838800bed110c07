"""Additions to torchvision's residual blocks: blocks that add no identity, and the shortcut without parameters.

Source: He et al. 2015, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.regnet import ResBottleneckBlock
from torchvision.models.resnet import BasicBlock, Bottleneck


class PlainBasicBlock(BasicBlock):
    """A BasicBlock that does not add its identity. If it has a `downsample`, that is not computed."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)))


class PlainBottleneck(Bottleneck):
    """A Bottleneck that does not add its identity. If it has a `downsample`, that is not computed."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)))


class PlainResBottleneckBlock(ResBottleneckBlock):
    """A RegNet's ResBottleneckBlock that does not add its identity. If it has a `proj`, that is not computed."""

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.f(x))


class PaddedShortcut(nn.Module):
    """Option A of He et al. 2015, section 3.3: every `stride`-th pixel, and `extra_channels` channels of zeros.

    (N, C, H, W) -> (N, C + extra_channels, ceil(H / stride), ceil(W / stride)). The zeros come last; the paper does
    not say where.
    """

    def __init__(self, stride: int, extra_channels: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra_channels = extra_channels

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.extra_channels))
