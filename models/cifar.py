"""Residual networks for images of 32x32 pixels: a 3x3 stem without pooling, then stages of basic blocks.

Source: He et al. 2015, section 4.2, https://arxiv.org/abs/1512.03385.
"""

from torch import nn
from torchvision.models.resnet import conv3x3

from models import ModelError
from models.stages import Shortcut, network


def resnet(depth: int, shortcut: Shortcut = "B", num_classes: int = 10) -> nn.Module:
    """The CIFAR family: depth = 6n+2, three stages of n blocks with 16, 32 and 64 channels.

    (N, 3, H, W) -> (N, num_classes) at any H and W; the paper has 32x32 and depths 20, 32, 44, 56 and 110.
    Shortcuts where shapes change: "A" zero-padded (the paper's choice), "B" projected; "none" is the plain network.
    Raises ModelError for another depth or shortcut, or without classes.
    """
    if depth < 8 or (depth - 2) % 6:
        nearest = max(8, 6 * round((depth - 2) / 6) + 2)
        raise ModelError(f"no CIFAR ResNet of depth {depth}: it is 6n+2 (20, 32, 44, ...); the nearest is {nearest}")
    return network(_stem(16), (16, 32, 64), [(depth - 2) // 6] * 3, shortcut, num_classes)


def resnet18(shortcut: Shortcut = "B", num_classes: int = 10) -> nn.Module:
    """ResNet-18 for small images: torchvision's four stages after a 3x3 stem of stride 1 without max-pool.

    (N, 3, H, W) -> (N, num_classes). Shortcuts and errors as in `resnet`.
    """
    return network(_stem(64), (64, 128, 256, 512), [2] * 4, shortcut, num_classes)


def _stem(channels: int) -> dict[str, nn.Module]:
    return {"conv1": conv3x3(3, channels), "bn1": nn.BatchNorm2d(channels), "relu": nn.ReLU(inplace=True)}
