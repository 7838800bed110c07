"""Micro-batches of the suite's own input pipelines, of random images in the size of CIFAR-10's."""

from __future__ import annotations

import dataclasses

import torch

from bench.ceilings.repetitions import Effort, Times, repeat_next
from bench.data.dataset import DataSet, Split
from bench.data.pipeline import InputPipeline
from bench.trial import Trial

PIXELS, CLASSES = 32, 10
# Micro-batches in a repetition: several of each of the loader's workers, which deliver side by side.
CALLS = 8


def trials(batch: int, large_batch: int) -> list[Trial]:
    """Augmented as CIFAR-10 is by default, by both pipelines: at 32 pixels by `batch`, at 224 by `large_batch`."""
    resident = Trial(pipeline="resident", image_size=PIXELS, micro_batch=batch, augment="crop_flip")
    large = dataclasses.replace(resident, image_size=224, micro_batch=large_batch)
    return [resident, large, *(dataclasses.replace(each, pipeline="loader") for each in (resident, large))]


def name(trial: Trial) -> str:
    """Such as "loader, 2 workers: crop_flip, 224 pixels, batch 128"."""
    workers = f", {trial.workers} workers" if trial.pipeline == "loader" else ""
    return f"{trial.pipeline}{workers}: {trial.augment}, {trial.image_size} pixels, batch {trial.micro_batch}"


def take(trial: Trial, device: torch.device, effort: Effort) -> Times:
    """Times of one micro-batch. Those that the loader has ready when it starts are not among them."""
    skipped = 2 * trial.workers + 1 if trial.pipeline == "loader" else 1
    passes = [(n * trial.micro_batch, (n + 1) * trial.micro_batch) for n in range(skipped + CALLS * effort.repetitions)]
    images = torch.randint(0, 256, (passes[-1][1], 3, PIXELS, PIXELS), dtype=torch.uint8)
    split = Split(images, torch.zeros(len(images), dtype=torch.long))
    few = Split(images[:2], split.labels[:2])
    pipeline = InputPipeline(trial, DataSet(split, few, CLASSES, (0.5,) * 3, (0.25,) * 3), device)
    return repeat_next(iter(pipeline.train(0, passes)), device, effort, CALLS, skipped)
