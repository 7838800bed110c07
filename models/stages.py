"""Stages of basic blocks after a stem, of which our own residual networks are built, with each kind of shortcut.

The modules have torchvision's names (conv1, bn1, layer1, ..., fc), so that `surgery` works on both.
Source: He et al. 2015, https://arxiv.org/abs/1512.03385.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from torch import nn
from torchvision.models.resnet import BasicBlock, conv1x1

from models import ModelError
from models.blocks import PaddedShortcut, PlainBasicBlock

Shortcut = Literal["A", "B", "none"]


def network(
    stem: Mapping[str, nn.Module], widths: Sequence[int], blocks: Sequence[int], shortcut: Shortcut, num_classes: int
) -> nn.Module:
    """The stem, whose output has widths[0] channels, a stage of blocks[i] blocks for each width, and a linear head.

    (N, 3, H, W) -> (N, num_classes). Shortcuts where shapes change: "A" zero-padded, "B" projected; "none" is the plain
    network. Raises ModelError for another shortcut, or without classes.
    """
    if shortcut not in get_args(Shortcut):
        raise ModelError(f"no shortcut {shortcut!r}; choose from: {', '.join(get_args(Shortcut))}")
    if num_classes < 1:
        raise ModelError(f"a model cannot have {num_classes} classes; give at least 1")
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem)
    in_channels = widths[0]
    for index, (channels, count) in enumerate(zip(widths, blocks, strict=True)):
        stride = 1 if index == 0 else 2
        layers[f"layer{index + 1}"] = _stage(in_channels, channels, stride, count, shortcut)
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
    """The shortcut of a stage's first block; None if the identity fits, or if none is added."""
    if shortcut == "none" or (stride == 1 and in_channels == channels):
        return None
    if shortcut == "A":
        return PaddedShortcut(stride, channels - in_channels)
    return nn.Sequential(conv1x1(in_channels, channels, stride), nn.BatchNorm2d(channels))


def _initialise(model: nn.Module) -> None:
    """Initialise as torchvision's ResNet does, after He et al. 2015, https://arxiv.org/abs/1502.01852. Not fc."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
