"""A picture of what an arm's augmentation does to its training images. Imports torch and PIL."""

from __future__ import annotations

import dataclasses

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from bench.data.dataset import DataSet, Split
from bench.data.pipeline import InputPipeline
from bench.trial import Trial

IMAGES, EPOCHS = 8, 7
TILE, GAP, MARGIN, HEAD = 96, 4, 12, 44  # pixels


def draw(trial: Trial, data: DataSet) -> Image.Image:
    """A row for each training image: as it is, then as the model sees it in each of the first epochs."""
    rows = tiles(trial, data)
    step = TILE + GAP
    size = (2 * MARGIN + (1 + EPOCHS) * step + GAP, HEAD + len(rows) * step + MARGIN)
    page = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    never = ", which are never mirrored" if trial.data == "digits" and "flip" in trial.augment else ""
    pen.text((MARGIN, 4), f"{trial.experiment} {trial.arm}: {trial.augment} of {trial.data}{never}", "black", font)
    pen.text((MARGIN, 24), "as it is", "black", font)
    pen.text((MARGIN + step + GAP, 24), f"as the model sees it in epochs 1 to {EPOCHS}", "black", font)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            picture = to_pil_image(image).resize((TILE, TILE), Image.Resampling.NEAREST)
            page.paste(picture, (MARGIN + column * step + GAP * (column > 0), HEAD + row * step))
    return page


def tiles(trial: Trial, data: DataSet) -> list[list[Tensor]]:
    """For each of the training images: itself, then it in each epoch, (3, S, S) uint8 of the size that is trained on.

    Every picture comes out of the pipeline that training gets its own from.
    """
    # Numbered in place of labelled, so that each is known again in whatever order an epoch has.
    numbered = Split(data.train.images, torch.arange(len(data.train)))
    pipeline = InputPipeline(trial, dataclasses.replace(data, train=numbered, evaluation=numbered), torch.device("cpu"))
    passes = [(0, len(numbered))]
    rows: list[list[Tensor]] = [[] for _ in range(len(numbered))]
    for batches in (pipeline.evaluate(passes), *(pipeline.train(epoch, passes) for epoch in range(EPOCHS))):
        for images, numbers in batches:
            pixels = (images * pipeline.std + pipeline.mean).round().clamp(0, 255).byte()
            for number, image in zip(numbers.tolist(), pixels, strict=True):
                rows[number].append(image)
    return rows
