"""`python -m launch sheet`: what an arm's augmentation does to its training images, as a picture."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import experiments
from bench.errors import UsageError
from bench.options import take_option
from bench.record.csvfile import write_whole
from bench.trial import Trial
from launch.sweep import matrix

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from bench.data.dataset import DataSet

IMAGES, EPOCHS = 8, 7
TILE, GAP, MARGIN, HEAD = 96, 4, 12, 44  # pixels


def run(words: Sequence[str]) -> int:
    """Write a PNG for each arm and say where. UsageError: an option is wrong, or the data is not there."""
    if not words or words[0].startswith("-"):
        raise UsageError(f"sheet needs an experiment first; choose from: {', '.join(experiments.names())}")
    name, rest = words[0], list(words[1:])
    folder, rest = take_option(rest, "-o")
    arms, rest = take_option(rest, "--arm")
    if axes := matrix.axes(rest):
        raise UsageError(f"sheet draws a picture for each arm: give --{axes[0].replace('_', '-')} one value")
    trials, options = matrix.trials(name, arms, rest)
    from bench.data import datasets  # imports torch

    for trial in trials:
        if trial.data == "synthetic":
            raise UsageError("--data synthetic has no pictures to augment; give --data digits or cifar10")
        path = Path(folder or "runs/sheets") / f"{name}-{trial.arm}.png"
        found = datasets.load(dataclasses.replace(trial, limit_train=IMAGES, evaluate_on="none"), options.data_root)
        drawn = io.BytesIO()
        sheet(trial, found).save(drawn, "PNG")
        write(path, drawn.getvalue())
        print(path)
    return 0


def write(path: Path, content: bytes) -> None:
    """UsageError: the folder cannot be made or written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another -o") from error


def sheet(trial: Trial, found: DataSet) -> Image:
    """A row for each training image: as it is, then as the model sees it in each of the first epochs."""
    from PIL import Image, ImageDraw, ImageFont
    from torchvision.transforms.functional import to_pil_image

    rows = shown(trial, found)
    step = TILE + GAP
    size = (2 * MARGIN + (1 + EPOCHS) * step + GAP, HEAD + len(rows) * step + MARGIN)
    page = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    never = ", which are never mirrored" if trial.data == "digits" and "flip" in trial.augment else ""
    pen.text((MARGIN, 4), f"{trial.experiment} {trial.arm}: {trial.augment} of {trial.data}{never}", "black", font)
    pen.text((MARGIN, 24), "as it is", "black", font)
    pen.text((MARGIN + step + GAP, 24), f"as the model sees it in epochs 1 to {EPOCHS}", "black", font)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            picture = to_pil_image(tile).resize((TILE, TILE), Image.Resampling.NEAREST)
            page.paste(picture, (MARGIN + column * step + GAP * (column > 0), HEAD + row * step))
    return page


def shown(trial: Trial, found: DataSet) -> list[list[Tensor]]:
    """For each of the training images: itself, then it in each epoch, (3, S, S) uint8 of the size that is trained on.

    Every picture comes out of the pipeline that training gets its own from.
    """
    import torch

    from bench.data.dataset import Split
    from bench.data.pipeline import InputPipeline

    # Numbered in place of labelled, so that each is known again in whatever order an epoch has.
    numbered = Split(found.train.images, torch.arange(len(found.train)))
    feed = InputPipeline(trial, dataclasses.replace(found, train=numbered, evaluation=numbered), torch.device("cpu"))
    passes = [(0, len(numbered))]
    rows: list[list[Tensor]] = [[] for _ in range(len(numbered))]
    for batches in (feed.evaluate(passes), *(feed.train(epoch, passes) for epoch in range(EPOCHS))):
        for images, numbers in batches:
            pixels = (images * feed.std + feed.mean).round().clamp(0, 255).byte()
            for number, image in zip(numbers.tolist(), pixels, strict=True):
                rows[number].append(image)
    return rows
