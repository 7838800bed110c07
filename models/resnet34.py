"""ResNet-34 with any of the paper's shortcuts. With option B it equals torchvision's.

Source: He et al. 2015, section 3.3 and table 1, https://arxiv.org/abs/1512.03385.
"""

from torch import nn

from models.stages import Shortcut, network


def resnet34(shortcut: Shortcut = "B", num_classes: int = 10) -> nn.Module:
    """(N, 3, H, W) -> (N, num_classes), made for 224x224 pixels: a 7x7 stem, max-pool, 3, 4, 6 and 3 basic blocks.

    Shortcuts where shapes change: "A" zero-padded, "B" projected; "none" is the plain network. The state dict has
    torchvision's keys. Raises ModelError for another shortcut, or without classes.
    """
    stem = {
        "conv1": nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False),
        "bn1": nn.BatchNorm2d(64),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    }
    return network(stem, (64, 128, 256, 512), (3, 4, 6, 3), shortcut, num_classes)
