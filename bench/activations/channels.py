"""The outputs of layers of a trained network for an image, drawn channel by channel, and which channels are dead.

A channel is dead if it is 0 after its ReLU, everywhere, on every image of the evaluation set. This can be said of a
layer whose output comes from a ReLU (the channel is 0), or goes into one unchanged (it is 0 or less). For all others,
such as a convolution before BatchNorm, the cell is empty. The network is in evaluation mode, in float32, on the CPU.
If a pass calls a module more than once, as a block calls its `relu`, the last call counts. With fewer images
(--limit-eval) more channels look dead, never fewer.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from bench.activations import grid
from bench.data import datasets
from bench.data.dataset import DataSet, Split
from bench.data.pipeline import InputPipeline
from bench.errors import UsageError, reason
from bench.record.csvfile import cell, write_whole
from bench.training import checkpoint
from bench.trial import Trial
from models import surgery

# Of a ResNet, timm's (act1) and a RegNet.
LAYERS = (
    *("conv1", "relu", "act1", "layer1", "layer2", "layer3", "layer4"),
    *("stem", *(f"trunk_output.block{stage}" for stage in range(1, 5))),
)
COLUMNS = ("layer", "channels", "height", "width", "dead_channels", "dead_share", "evaluation_images")
LIMIT_EVAL = 512
PASS = 32  # evaluation images at once
MOST_PIXELS = 2**25  # 400 MB as float32
CPU = torch.device("cpu")


@dataclass
class Output:
    """A layer's output: a copy (C, H, W), and whether it comes from a ReLU or goes into one unchanged."""

    values: Tensor
    rectified: bool
    tensor: Tensor  # the output itself, which a later module may change in place
    version: int  # torch's count of in-place changes

    def is_still(self, tensor: Any) -> bool:
        """Whether this is the same tensor, unchanged."""
        return self.tensor is tensor and self.tensor._version == self.version


@torch.no_grad()
def outputs(model: nn.Module, images: Tensor, names: Sequence[str]) -> dict[str, Output]:
    """The outputs of the named modules for one image (1, 3, S, S); a vector counts as channels of 1x1.

    Raises UsageError if a module takes no part in the pass, or if its output is not finite.
    """
    by_name: dict[str, Output] = {}
    by_relu: list[tuple[Tensor, int]] = []  # outputs of ReLUs, with their versions

    def before_relu(module: nn.Module, args: tuple[Tensor]) -> None:
        for output in by_name.values():
            output.rectified |= output.is_still(args[0])

    def after_relu(module: nn.Module, args: Any, result: Tensor) -> None:
        by_relu.append((result, result._version))

    def keep(name: str, result: Tensor) -> None:
        values = result[0].clone().reshape(result.shape[1], *(result.shape[2:] or (1, 1)))
        rectified = any(result is each and result._version == version for each, version in by_relu)
        by_name[name] = Output(values, rectified, result, result._version)

    with contextlib.ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                hooks.enter_context(module.register_forward_pre_hook(before_relu))
                hooks.enter_context(module.register_forward_hook(after_relu))
        hooks.enter_context(hooked(model, names, keep))
        model(images)
    for name in names:
        if name not in by_name:
            raise UsageError(f"{name} takes no part in a pass through this model; leave it out of --layers")
        if not by_name[name].values.isfinite().all():
            raise UsageError(f"the output of {name} is not finite; give a checkpoint that did not diverge")
    return by_name


@torch.no_grad()
def dead_channels(model: nn.Module, batches: Iterable[Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Which channels of the named modules are 0 or less everywhere on all images: bool (C,) each."""
    dead: dict[str, Tensor] = {}
    dead_in_batch: dict[str, Tensor] = {}

    def keep(name: str, result: Tensor) -> None:
        dead_in_batch[name] = (result <= 0).transpose(0, 1).flatten(1).all(1)

    with hooked(model, names, keep):
        for images in batches:
            model(images)
            dead |= {name: channels & dead.get(name, channels) for name, channels in dead_in_batch.items()}
    return dead


@contextlib.contextmanager
def hooked(model: nn.Module, names: Sequence[str], keep: Any) -> Iterator[None]:
    """While entered, calls keep(name, output) after every call of one of the modules."""

    def hook(name: str) -> Any:
        return lambda module, args, result: keep(name, result)

    with contextlib.ExitStack() as hooks:
        for name in names:
            hooks.enter_context(model.get_submodule(name).register_forward_hook(hook(name)))
        yield


def layers(model: nn.Module, text: str | None) -> list[str]:
    """The layers in a list such as "relu,layer1.0"; None: those of LAYERS that the model has.

    Raises UsageError if the model has no such layer.
    """
    modules = dict(model.named_modules())
    if text is None:
        return [name for name in LAYERS if name in modules]
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if not name or name not in modules:
            raise UsageError(f"no layer {name!r}; {surgery.nearest_are(name, modules.keys() - {''})}")
    return names


def read_image(path: Path) -> Tensor:
    """An image file as uint8 (3, H, W), upright. Raises UsageError if it is no image, damaged or too large."""
    if not path.is_file():
        raise UsageError(f"no image file {path}; check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                _check_kind(image, path)
                pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UsageError:
        raise
    except Exception as error:  # Pillow raises many types of exceptions on damaged files.
        raise UsageError(
            f"cannot read {path} as an image ({reason(error)}); give a complete PNG or JPEG file"
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _check_kind(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise UsageError(f"{path} has {width} x {height} pixels; make it smaller, {MOST_PIXELS} pixels at most")
    if image.mode.startswith(("I", "F")):  # Pillow would clip values above 255.
        raise UsageError(f"{path} has more than 8 bits a pixel and channel (mode {image.mode}); save it with 8")


def prepared(image: Tensor, trial: Trial, data: DataSet) -> Tensor:
    """A uint8 image (3, H, W) as the trial's model gets an evaluation image: (1, 3, S, S), resized and normalised."""
    alone = dataclasses.replace(data, evaluation=Split(image[None], torch.zeros(1, dtype=torch.long)))
    # Not with data="synthetic", whose pipeline would return random images.
    pipeline = InputPipeline(dataclasses.replace(trial, data="cifar10", classes=(), pipeline="resident"), alone, CPU)
    return next(pipeline.evaluate([(0, 1)]))[0]


def evaluation_images(trial: Trial, data: DataSet) -> tuple[int, Iterator[Tensor]]:
    """(number of distinct images, batches of them) of the evaluation set. Random images are one micro-batch."""
    count = len(data.evaluation)
    if trial.data == "synthetic":
        count = min(count, trial.micro_batch, PASS)
    passes = [(first, min(first + PASS, count)) for first in range(0, count, PASS)]
    return count, (images for images, _ in InputPipeline(trial, data, CPU).evaluate(passes))


def evaluation_trial(trial: Trial, data_set: str | None, limit: int | None) -> Trial:
    """The checkpoint's trial with this data set (None: its own) and this limit of evaluation images."""
    if limit is None:
        limit = min(LIMIT_EVAL, trial.limit_eval or LIMIT_EVAL)
    changes: dict[str, Any] = {"data": data_set} if data_set is not None else {}
    # Only evaluation images are needed.
    changes |= {"limit_train": 1, "validation": 0.0, "evaluate_on": "none"}
    return dataclasses.replace(trial, pipeline="resident", limit_eval=limit, **changes)


def picture(name: str, output: Output, dead: Tensor | None, images: int, source: str) -> bytes:
    """A PNG of all channels of a layer. `dead`: (C,) bool on `images` evaluation images; None: not counted."""
    framed = [False] * len(output.values) if dead is None else dead.tolist()
    return grid.draw(output.values.numpy(), framed, *words(name, output, dead, images, source))[0]


def words(name: str, output: Output, dead: Tensor | None, images: int, source: str) -> tuple[str, list[str]]:
    """(a picture's title, the sentences below it)."""
    channels, height, width = output.values.shape
    if dead is None:
        about_dead = "Dead channels: not counted, since no ReLU follows directly."
    else:
        count = int(dead.sum())
        framed = ", framed in red" if count else ""
        about_dead = f"Dead channels: {count} of {channels} ({count / channels:.1%}){framed}. "
        about_dead += f"A dead channel is 0 after its ReLU, everywhere on all {images} evaluation images."
    legend = "Each tile is a channel in its own range: black its least value, white its greatest; black if constant."
    if height * width == 1:
        legend = "A channel is one number here, which is constant, and so black."
    number = "A channel's number is the one on the left plus the one above."
    return f"{name}: {channels} channels of {height} x {width}", [about_dead, f"Input: {source}.", legend, number]


def row(name: str, output: Output, dead: Tensor | None, images: int) -> dict[str, Any]:
    """A layer's row of activations.csv."""
    shape = output.values.shape
    count = None if dead is None else int(dead.sum())
    share = None if count is None else count / shape[0]
    return dict(zip(COLUMNS, (name, *shape, count, share, images), strict=True))


def write(out: Path, pictures: dict[str, bytes], rows: Sequence[dict[str, Any]]) -> None:
    """Write a PNG for each layer, and activations.csv, into the folder. Raises UsageError if it cannot be written."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *([cell(row[name]) for name in COLUMNS] for row in rows)])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}; choose another -o") from error
    for name, content in pictures.items():
        write_whole(out / f"{name}.png", content)
    write_whole(out / "activations.csv", text.getvalue())


def run(options: argparse.Namespace) -> None:
    """Run the command. Raises UsageError if the request cannot be met; then nothing is written."""
    image = read_image(options.image)
    trial, model = checkpoint.load_model(options.checkpoint, options.model)
    names = layers(model, options.layers)
    trial = evaluation_trial(trial, options.data, options.limit_eval)
    data = datasets.load(trial, options.data_root)
    by_name = outputs(model, prepared(image, trial, data), names)
    count, batches = evaluation_images(trial, data)
    dead = dead_channels(model, batches, [name for name in names if by_name[name].rectified])
    source = options.image.name.encode("ascii", "replace").decode()  # letters that the font has
    source = f"{source[:60]}, resized to {trial.image_size} x {trial.image_size}"
    results = [(name, by_name[name], dead.get(name), count) for name in names]
    write(options.out, {each[0]: picture(*each, source) for each in results}, [row(*each) for each in results])
    print(f"{len(names)} layers in {options.out}: a PNG each, and activations.csv")
