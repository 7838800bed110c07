"""The models that there are, by name. Imports no torch."""

import re

from models import ModelError
from models.nearest import nearest

CIFAR = ("resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet18_cifar")
HANDBUILT = "resnet34_handbuilt"
OWN = "own"  # what an experiment's own file builds
# All of torchvision's networks that are made of residual blocks of convolutions and end in a linear `fc`.
TORCHVISION = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
    *(f"regnet_x_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")),
    *(f"regnet_y_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf", "128gf")),
)
NAMES = (*CIFAR, HANDBUILT, *TORCHVISION)
# (mean, deviation) of ImageNet's images. Published weights are trained on images that were normalised with these.
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TIMM = "timm/"
# timm's families whose residual blocks are of kinds that `surgery` does not know.
WITHOUT_BLOCKS = ("timm/res2ne", "timm/resnest")
TIMM_NAME = re.compile(r"timm/[a-z0-9_]+")


def check(name: str) -> None:
    """Raises ModelError, with the nearest name, for one that is no model's. Which names timm has, timm says."""
    if name in (*NAMES, OWN) or TIMM_NAME.fullmatch(name):
        return
    (close,) = nearest(name, (*NAMES, "timm/resnet50d"), cutoff=0)
    own = ", ".join((*CIFAR, HANDBUILT))
    raise ModelError(
        f"no model {name!r}; the nearest is {close}; choose from: {own}, torchvision's (resnet18, resnext50_32x4d, "
        f"wide_resnet50_2, regnet_y_400mf, ...), or timm's (timm/resnet50d, ...)"
    )


def is_ours(name: str) -> bool:
    """Whether the model is one of our own, of which some can have other shortcuts than the projected one."""
    return name in CIFAR or name == HANDBUILT


def is_timm(name: str) -> bool:
    """Whether the model is timm's."""
    return name.startswith(TIMM)


def has_blocks(name: str) -> bool:
    """Whether `surgery.blocks` knows this model's residual blocks. A model of the user's own may have any."""
    return name != OWN and not name.startswith(WITHOUT_BLOCKS)


def is_imagenet(name: str) -> bool:
    """Whether the model is made for ImageNet's 224x224 pixels, and its images are normalised as ImageNet's."""
    return name not in (*CIFAR, OWN)
