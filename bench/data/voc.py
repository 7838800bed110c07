"""PASCAL VOC as images of single objects, cut out by their boxes, of classes that CIFAR-10 has too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.datasets import VOCDetection
from torchvision.transforms.functional import pil_to_tensor

from bench.data.dataset import Split
from bench.errors import UsageError, reason

YEAR = "2012"
FOLDER = f"VOCdevkit/VOC{YEAR}"
# VOC's name -> CIFAR-10's number. VOC also has a horse and a boat, which the experiment's source leaves out; no frog.
CLASSES = {"aeroplane": 0, "car": 1, "bird": 2, "cat": 3, "dog": 5}


def load(root: Path, size: int) -> tuple[Split, Split]:
    """Objects of the train and of the val images: (N, 3, size, size) uint8, labels numbered as CIFAR-10's.

    Objects marked as difficult are left out, as in VOC's own evaluation. Raises UsageError if it is missing or damaged.
    """
    return objects(root, "train", size), objects(root, "val", size)


def objects(root: Path, image_set: str, size: int) -> Split:
    """The same for one of the two, "train" or "val"."""
    try:
        voc = VOCDetection(str(root), year=YEAR, image_set=image_set)
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"voc is incomplete in {root / FOLDER} ({reason(error)}); unpack VOC{YEAR}'s trainval "
            f"archive in {root}, or give --data-root"
        ) from error
    cut = [each for index in range(len(voc)) for each in _cut_out(voc, index, size)]
    if not cut:
        raise UsageError(f"voc: no object of {', '.join(CLASSES)} in {image_set} of {root / FOLDER}; see Annotations/")
    return Split(torch.stack([image for image, _ in cut]), torch.tensor([label for _, label in cut]))


def _cut_out(voc: VOCDetection, index: int, size: int) -> list[tuple[Tensor, int]]:
    """The objects of one image, with their labels. Raises UsageError if it or its annotation cannot be read."""
    try:
        picture, annotation = voc[index]
        pixels = pil_to_tensor(picture)
        return [(_cut(pixels, box, size), label) for label, box in _boxes(annotation)]
    except (OSError, SyntaxError, KeyError, TypeError, ValueError) as error:
        why = f"there is no {reason(error)}" if isinstance(error, KeyError) else reason(error)
        raise UsageError(
            f"voc: cannot read {voc.annotations[index]} or its image ({why}); unpack the archive again"
        ) from error


def _boxes(annotation: dict[str, Any]) -> list[tuple[int, tuple[int, int, int, int]]]:
    """(label, (left, top, right, bottom)) of each object in CLASSES. Raises KeyError if one has no box."""
    boxes = []
    for each in annotation["annotation"]["object"]:
        if each["name"] in CLASSES and each.get("difficult", "0") != "1":
            left, top, right, bottom = (round(float(each["bndbox"][edge])) for edge in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append((CLASSES[each["name"]], (left - 1, top - 1, right, bottom)))  # VOC counts pixels from 1
    return boxes


def _cut(pixels: Tensor, box: tuple[int, int, int, int], size: int) -> Tensor:
    """The box of an image (3, H, W) uint8, resized: (3, size, size). Raises ValueError if it is not in the image."""
    left, top, right, bottom = box
    if not (0 <= left < right <= pixels.shape[2] and 0 <= top < bottom <= pixels.shape[1]):
        raise ValueError(f"a box {left + 1, top + 1, right, bottom} outside of its image {tuple(pixels.shape[1:])}")
    values = pixels[None, :, top:bottom, left:right].float()
    resized = F.interpolate(values, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized[0].round().clamp(0, 255).byte()
