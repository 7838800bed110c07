"""What layers of a trained network answer to an image, drawn channel by channel, and which of their channels are dead.

A channel of a layer is dead if its ReLU lets nothing of it through: it is 0 everywhere, on every image of the
evaluation set. That is said of layers whose output a ReLU gave (there the channel is 0 itself), and of those whose
output goes into one unchanged (there it is 0 or less). Of all others, such as a convolution before BatchNorm, it is not
said: the cell is empty. The network is in evaluation mode, in float32, on the CPU. A module that a pass calls more than
once, as a block calls its `relu`, stands for its last call. Fewer images (--limit-eval) can only make more channels
look dead.
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
from bench.errors import UsageError
from bench.record.csvfile import cell, write_whole
from bench.training import checkpoint
from bench.trial import Trial
from models import surgery

LAYERS = ("conv1", "relu", "layer1", "layer2", "layer3", "layer4")
COLUMNS = ("layer", "channels", "height", "width", "dead_channels", "dead_share", "evaluation_images")
LIMIT_EVAL = 512
PASS = 32  # evaluation images at once
MOST_PIXELS = 2**25  # as float32, 400 MB
CPU = torch.device("cpu")


@dataclass
class Output:
    """What a layer gave out: a copy (C, H, W), and whether it is a ReLU's or goes into one unchanged."""

    values: Tensor
    rectified: bool
    tensor: Tensor  # itself, which an in-place module may change later
    version: int

    def is_still(self, tensor: Any) -> bool:
        """Whether this is the very tensor, and nothing has changed it since."""
        return self.tensor is tensor and self.tensor._version == self.version


@torch.no_grad()
def outputs(model: nn.Module, images: Tensor, names: Sequence[str]) -> dict[str, Output]:
    """What the named modules answer to one image (1, 3, S, S); a vector is taken for channels of 1x1.

    UsageError: a module takes no part in the pass, or answers with numbers that are not finite.
    """
    found: dict[str, Output] = {}
    by_relu: list[tuple[Tensor, int]] = []

    def before_relu(module: nn.Module, given: tuple[Tensor]) -> None:
        for output in found.values():
            output.rectified |= output.is_still(given[0])

    def after_relu(module: nn.Module, given: Any, answer: Tensor) -> None:
        by_relu.append((answer, answer._version))

    def keep(name: str, answer: Tensor) -> None:
        values = answer[0].clone().reshape(answer.shape[1], *(answer.shape[2:] or (1, 1)))
        rectified = any(answer is made and answer._version == version for made, version in by_relu)
        found[name] = Output(values, rectified, answer, answer._version)

    with contextlib.ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                hooks.enter_context(module.register_forward_pre_hook(before_relu))
                hooks.enter_context(module.register_forward_hook(after_relu))
        hooks.enter_context(watched(model, names, keep))
        model(images)
    for name in names:
        if name not in found:
            raise UsageError(f"{name} takes no part in a pass through this model; leave it out of --layers")
        if not found[name].values.isfinite().all():
            raise UsageError(f"{name} answers with numbers that are not finite; give a checkpoint that did not diverge")
    return found


@torch.no_grad()
def dead_channels(model: nn.Module, batches: Iterable[Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Which channels of the named modules are 0 or less everywhere on all images: bool (C,) each."""
    dead: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}

    def keep(name: str, answer: Tensor) -> None:
        last[name] = (answer <= 0).transpose(0, 1).flatten(1).all(1)

    with watched(model, names, keep):
        for images in batches:
            model(images)
            dead |= {name: found & dead.get(name, found) for name, found in last.items()}
    return dead


@contextlib.contextmanager
def watched(model: nn.Module, names: Sequence[str], keep: Any) -> Iterator[None]:
    """Calls keep(name, answer) whenever one of the modules has answered."""

    def hook(name: str) -> Any:
        return lambda module, given, answer: keep(name, answer)

    with contextlib.ExitStack() as hooks:
        for name in names:
            hooks.enter_context(model.get_submodule(name).register_forward_hook(hook(name)))
        yield


def layers(model: nn.Module, text: str | None) -> list[str]:
    """The layers of a list such as "relu,layer1.0", by default those of LAYERS that there are. UsageError: no such."""
    known = dict(model.named_modules())
    if text is None:
        return [name for name in LAYERS if name in known]
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if not name or name not in known:
            raise UsageError(f"no layer {name!r}; {surgery.nearest(name, known.keys() - {''})}")
    return names


def read_image(path: Path) -> Tensor:
    """An image file as uint8 (3, H, W), upright. UsageError: it is none, is damaged, or larger than MOST_PIXELS."""
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
    except Exception as error:  # Pillow raises whatever the bytes lead it to.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"cannot read {path} as an image ({reason}); give a PNG or JPEG file that is whole") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _check_kind(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise UsageError(f"{path} has {width} x {height} pixels; make it smaller, {MOST_PIXELS} pixels at most")
    if image.mode.startswith(("I", "F")):  # Pillow would cut off what is above 255.
        raise UsageError(f"{path} has more than 8 bits a pixel and channel (mode {image.mode}); save it with 8")


def prepared(image: Tensor, trial: Trial, found: DataSet) -> Tensor:
    """uint8 (3, H, W) as the trial's model is shown an evaluation image: (1, 3, S, S), resized and normalised."""
    alone = dataclasses.replace(found, evaluation=Split(image[None], torch.zeros(1, dtype=torch.long)))
    # Random images are made in their final size; this one is not.
    feed = InputPipeline(dataclasses.replace(trial, data="cifar10", pipeline="resident"), alone, CPU)
    return next(feed.evaluate([(0, 1)]))[0]


def evaluation_images(trial: Trial, found: DataSet) -> tuple[int, Iterator[Tensor]]:
    """(how many unlike images, batches of them) of the evaluation set; of random ones there is one micro-batch."""
    count = len(found.evaluation)
    if trial.data == "synthetic":
        count = min(count, trial.micro_batch, PASS)
    feed = InputPipeline(trial, found, CPU)
    passes = [(at, min(at + PASS, count)) for at in range(0, count, PASS)]
    return count, (images for images, _ in feed.evaluate(passes))


def evaluation_trial(trial: Trial, data_set: str | None, limit: int | None) -> Trial:
    """The checkpoint's trial, with the data set and the limit that are given in place of its own."""
    if limit is None:
        limit = min(LIMIT_EVAL, trial.limit_eval or LIMIT_EVAL)
    changes: dict[str, Any] = {"data": data_set} if data_set is not None else {}
    # No other image is looked at.
    changes |= {"limit_train": 1, "validation": 0.0, "evaluate_on": "none"}
    return dataclasses.replace(trial, pipeline="resident", limit_eval=limit, **changes)


def picture(name: str, output: Output, dead: Tensor | None, images: int, source: str) -> bytes:
    """A PNG of all channels of a layer. `dead`: (C,) bool, None where a ReLU has no say; `images`: it was told by."""
    framed = [False] * len(output.values) if dead is None else dead.tolist()
    return grid.draw(output.values.numpy(), framed, *words(name, output, dead, images, source))[0]


def words(name: str, output: Output, dead: Tensor | None, images: int, source: str) -> tuple[str, list[str]]:
    """(a picture's title, what it has to say below)."""
    channels, height, width = output.values.shape
    if dead is None:
        said = "Dead channels: not counted, since no ReLU follows directly."
    else:
        count = int(dead.sum())
        said = f"Dead channels: {count} of {channels} ({count / channels:.1%})" + (
            ", framed in red. " if count else ". "
        )
        said += f"A dead channel is 0 after its ReLU, everywhere on all {images} evaluation images."
    legend = "Each tile is a channel in its own range: black its least value, white its greatest; black if constant."
    if height * width == 1:
        legend = "A channel is one number here, which is constant, and so black."
    number = "A channel's number is the one on the left plus the one above."
    return f"{name}: {channels} channels of {height} x {width}", [said, f"Input: {source}.", legend, number]


def row(name: str, output: Output, dead: Tensor | None, images: int) -> dict[str, Any]:
    """A layer's row of activations.csv."""
    shape = output.values.shape
    count = None if dead is None else int(dead.sum())
    share = None if count is None else count / shape[0]
    return dict(zip(COLUMNS, (name, *shape, count, share, images), strict=True))


def write(out: Path, pictures: dict[str, bytes], rows: Sequence[dict[str, Any]]) -> None:
    """Put a PNG for each layer, and activations.csv, into the folder. UsageError: it cannot be written."""
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
    """All that the command does. UsageError: it cannot; then nothing is written."""
    image = read_image(options.image)
    trial, model = checkpoint.load_model(options.checkpoint, options.model)
    names = layers(model, options.layers)
    trial = evaluation_trial(trial, options.data, options.limit_eval)
    found = datasets.load(trial, options.data_root)
    answers = outputs(model, prepared(image, trial, found), names)
    count, batches = evaluation_images(trial, found)
    dead = dead_channels(model, batches, [name for name in names if answers[name].rectified])
    source = options.image.name.encode("ascii", "replace").decode()
    source = f"{source[:60]}, resized to {trial.image_size} x {trial.image_size}"
    told = [(name, answers[name], dead.get(name), count) for name in names]
    write(options.out, {facts[0]: picture(*facts, source) for facts in told}, [row(*facts) for facts in told])
    print(f"{len(names)} layers in {options.out}: a PNG each, and activations.csv")
