"""The pass over all images, before the first epoch, whose features are kept."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.data.pipeline import free_bytes
from bench.errors import UsageError
from bench.features.backbone import Backbone
from bench.features.pipeline import FeaturePipeline, Part
from bench.features.store import Place, allocate, place_for
from bench.record.progress import beat
from bench.training.confirm import contradiction
from bench.training.evaluation import limited
from bench.training.group import Group
from bench.training.loop import Training
from bench.training.windows import share
from bench.trial import Trial

CHUNK = 4096  # rows that a rank gives the others at once


def compute(trial: Trial, pipeline: FeaturePipeline, training: Training, group: Group, folder: Path) -> dict[str, Any]:
    """Compute the features of all images that the trial uses in each epoch. Returns the columns of trials.csv.

    The ranks share the training images, in each of their outcomes, and each gets all features. What a rank evaluates on
    is its own. `folder`: for features that fit into no memory. Raises UsageError if an image went through the backbone
    twice, or not at all.
    """
    if (images := len(pipeline.data.train)) < trial.processes:
        raise UsageError(f"--features is once, but {trial.processes} processes cannot share {images} training images")
    began_s = time.monotonic()
    group.share_weights(training.module)
    training.mark("forward")
    backbone = Backbone(training.module, group.device, group.accelerator.autocast)
    span, kept = share(0, pipeline.train_rows, trial.processes, group.rank), pipeline.parts(group.rank)
    found = computed(pipeline, backbone, span, kept)
    first = next(found)
    place, store = stored_in(trial, group, first[1], kept, folder)
    for row, features in itertools.chain([first], found):
        store[row : row + len(features)] = features.to(store.device)
        beat()
    check(trial, pipeline, group, backbone.images - filled_up(pipeline, span))
    if trial.processes > 1:
        exchange(store, pipeline.train_rows, group)
    pipeline.fill(store, backbone, kept)
    if group.device.type == "cuda":
        torch.cuda.synchronize(group.device)
    took = group.gather([time.monotonic() - began_s, float(store.nbytes)])
    pass_s, size = map(max, zip(*took, strict=True))
    return {"feature_pass_s": pass_s, "feature_bytes": int(size), "feature_place": place}


def computed(
    pipeline: FeaturePipeline, backbone: Callable[[Tensor, bool], Tensor], span: tuple[int, int], kept: Sequence[Part]
) -> Iterator[tuple[int, Tensor]]:
    """(row of the store, features (N, F) from it on), pass by pass: the span of training rows, then these parts.

    `backbone`: images (N, 3, S, S), and whether they are to train on -> their features.
    """
    start, stop = span
    for first in range(start, stop, pipeline.pass_size()):
        last = min(first + pipeline.pass_size(), stop)
        yield first, backbone(pipeline.train_images(first, last), True)[: last - first]
    for part in kept:
        batch = pipeline.trial.evaluation_batch()
        passes = [(first, min(first + batch, part.stop)) for first in range(part.start, part.stop, batch)]
        for (first, _), (images, _) in zip(passes, pipeline.images_of(part.split, passes), strict=True):
            yield part.row + first - part.start, backbone(images, False)


def filled_up(pipeline: FeaturePipeline, span: tuple[int, int]) -> int:
    """How many images only fill up the span's last pass."""
    return (span[0] - span[1]) % pipeline.pass_size()


def stored_in(trial: Trial, group: Group, features: Tensor, kept: Sequence[Part], folder: Path) -> tuple[Place, Tensor]:
    """(where all features fit on each rank, the empty store there), for features as these (N, F)."""
    rows = kept[-1].row + kept[-1].stop - kept[-1].start
    size = rows * features.shape[1] * features.element_size()
    own = [free_bytes(trial, group.device), free_bytes(trial, torch.device("cpu"))]
    place = place_for(trial, size, group.device, *map(min, zip(*group.gather(own), strict=True)))
    return place, allocate((rows, features.shape[1]), features.dtype, place, group.device, folder)


def check(trial: Trial, pipeline: FeaturePipeline, group: Group, images: int) -> None:
    """Raises UsageError unless each image, in each of its outcomes, has gone through the backbone of one rank, once."""
    ran = sum(int(each) for (each,) in group.gather([float(images)]))
    splits = (pipeline.data.evaluation, pipeline.data.validation)
    wanted = pipeline.train_rows + sum(limited(trial, len(split)) for split in splits if split is not None)
    if ran != wanted:
        raise contradiction("features", trial, f"{ran} images went through the backbone where there are {wanted}")


def exchange(store: Tensor, rows: int, group: Group) -> None:
    """Give each rank the training rows that the others have computed."""
    for rank in range(group.processes):
        start, stop = share(0, rows, group.processes, rank)
        for first in range(start, stop, CHUNK):
            last = min(first + CHUNK, stop)
            block = store[first:last].to(group.device)
            torch.distributed.broadcast(block.view(torch.uint8), rank)  # bytes, which each backend knows
            store[first:last] = block
            beat()
