"""Images in files, which are read when they are asked for: in place of a tensor of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy
import torch
from PIL import Image, ImageOps
from torch import Tensor

from bench.data import class_folders
from bench.data.dataset import DataSet, Split
from bench.errors import UsageError, reason
from bench.machine.cgroups import cpu_count


class ImageFiles:
    """Images (N, 3, S, S) uint8, each the middle square of its picture, resized.

    A number gives one image, a slice several; a tensor of positions gives those files. Raises UsageError, with the
    name, for a file that cannot be read or has more than 8 bits for each pixel and channel.
    """

    dtype = torch.uint8

    def __init__(self, paths: Sequence[str], size: int) -> None:
        self.paths, self.size = paths, size
        self.shape = torch.Size((len(paths), 3, size, size))

    def __len__(self) -> int:
        return len(self.paths)

    def numel(self) -> int:
        return self.shape.numel()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, Tensor):
            return ImageFiles([self.paths[number] for number in index.tolist()], self.size)
        if isinstance(index, slice):
            return ImageFiles(self.paths[index], self.size).read()
        return read(self.paths[index], self.size)

    def read(self) -> Tensor:
        """All of them, in memory. The files are decoded by as many threads as this machine's ranks leave each."""
        images = torch.empty(self.shape, dtype=torch.uint8)

        def fill(number: int) -> None:
            images[number] = read(self.paths[number], self.size)

        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        with ThreadPoolExecutor(max(1, (cpu_count() or 1) // ranks)) as pool:
            for _ in pool.map(fill, range(len(self.paths))):  # raises what a thread raised
                pass
        return images


def read(path: str, size: int) -> Tensor:
    """A picture's middle square, resized with antialiasing: uint8 (3, size, size). Raises UsageError as ImageFiles."""
    try:
        with Image.open(path) as picture:
            if picture.mode[0] in "IF":  # of 16 or 32 bits: convert() would cut all above 255 off
                raise UsageError(
                    f"{path} has more than 8 bits for each pixel (mode {picture.mode}); save it with 8, or remove it"
                )
            square = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"cannot read the image {path}: {reason(error)}; get it again, or remove it") from error
    return torch.from_numpy(numpy.array(square)).permute(2, 0, 1).contiguous()


def in_folder(folder: Path, size: int, mean: Sequence[float], std: Sequence[float]) -> DataSet:
    """The data set in these class folders; no image is read yet."""
    found = class_folders.scan(str(folder))

    def split(part: class_folders.Part) -> Split:
        # Whoever uses images takes what they have in common with a tensor.
        return Split(cast(Tensor, ImageFiles(part.paths, size)), torch.tensor(part.labels))

    return DataSet(split(found.train), split(found.evaluation), len(found.names), mean, std, found.names)
