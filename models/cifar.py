"""Residual networks for images of 32x32 pixels: a 3x3 stem without pooling, then stages of basic blocks.

The children are named as torchvision names its own (conv1, bn1, layer1, ..., fc), so one surgery serves both.
Source: He et al. 2015, section 4.2, https://arxiv.org/abs/1512.03385.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn
from torchvision.models.resnet import BasicBlock, conv1x1, conv3x3

from models import ModelError
from models.blocks import PaddedShortcut, PlainBasicBlock

Shortcut = Literal["A", "B", "none"]


def resnet(depth: int, shortcut: Shortcut = "B", num_classes: int = 10) -> nn.Module:
    """The CIFAR family: depth = 6n+2, three stages of n blocks with 16, 32 and 64 channels.

    (N, 3, H, W) -> (N, num_classes) at any H and W; the paper has 32x32 and depths 20, 32, 44, 56 and 110.
    Shortcuts where shapes change: "A" zero-padded (the paper's choice), "B" projected; "none" is the plain
    network. ModelError for another depth or shortcut, or without classes.
    """
    if depth < 8 or (depth - 2) % 6:
        nearest = max(8, 6 * round((depth - 2) / 6) + 2)
        raise ModelError(f"no CIFAR ResNet of depth {depth}: it is 6n+2 (20, 32, 44, ...); the nearest is {nearest}")
    return _build((16, 32, 64), (depth - 2) // 6, shortcut, num_classes)


def resnet18(shortcut: Shortcut = "B", num_classes: int = 10) -> nn.Module:
    """ResNet-18 for small images: torchvision's four stages behind a 3x3 stem of stride 1, and no max-pool.

    (N, 3, H, W) -> (N, num_classes). Shortcuts and errors as in `resnet`.
    """
    return _build((64, 128, 256, 512), 2, shortcut, num_classes)


def _build(widths: Sequence[int], blocks: int, shortcut: Shortcut, num_classes: int) -> nn.Module:
    if shortcut not in get_args(Shortcut):
        raise ModelError(f"no shortcut {shortcut!r}; choose from: {', '.join(get_args(Shortcut))}")
    if num_classes < 1:
        raise ModelError(f"a model cannot have {num_classes} classes; give at least 1")
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=conv3x3(3, widths[0]), bn1=nn.BatchNorm2d(widths[0]), relu=nn.ReLU(inplace=True)
    )
    in_channels = widths[0]
    for index, channels in enumerate(widths):
        stride = 1 if index == 0 else 2
        layers[f"layer{index + 1}"] = _stage(in_channels, channels, stride, blocks, shortcut)
        in_channels = channels
    layers |= {
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(in_channels, num_classes),
    }
    model = nn.Sequential(layers)
    _initialise(model)
    return model


def _stage(in_channels: int, channels: int, stride: int, blocks: int, shortcut: Shortcut) -> nn.Sequential:
    block = PlainBasicBlock if shortcut == "none" else BasicBlock
    first = block(in_channels, channels, stride, _downsample(in_channels, channels, stride, shortcut))
    return nn.Sequential(first, *(block(channels, channels) for _ in range(blocks - 1)))


def _downsample(in_channels: int, channels: int, stride: int, shortcut: Shortcut) -> nn.Module | None:
    """The shortcut of a stage's first block; None where the identity fits or is not added."""
    if shortcut == "none" or (stride == 1 and in_channels == channels):
        return None
    if shortcut == "A":
        return PaddedShortcut(stride, channels - in_channels)
    return nn.Sequential(conv1x1(in_channels, channels, stride), nn.BatchNorm2d(channels))


def _initialise(model: nn.Module) -> None:
    """As torchvision's ResNet, after He et al. 2015, https://arxiv.org/abs/1502.01852. Not fc."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
