"""How well does a trained checkpoint do on an evaluation set, its own or another? Imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.data import class_folders, datasets
from bench.data.dataset import DataSet, in_files
from bench.data.pipeline import Batch, InputPipeline, Passes
from bench.errors import UsageError
from bench.machine import backends
from bench.machine.devices import uses_cuda
from bench.training.build import DTYPES, place
from bench.training.loop import Evaluation, evaluate
from bench.trial import Trial
from models import names


def trial_to_evaluate(trained: Trial, evaluate_on: str | None, limit_eval: int | None) -> Trial:
    """The trained trial with another evaluation set, and at most `limit_eval` images; None leaves each as it is.

    Raises UsageError if that set has other classes, or is of random images.
    """
    changes: dict[str, Any] = {"evaluate_on": "none"}
    if limit_eval is not None:
        changes["limit_eval"] = limit_eval
    if evaluate_on not in (None, trained.data):
        changes["evaluate_on"] = evaluate_on
    elif trained.data == "synthetic":
        raise UsageError("the checkpoint was trained on random images; give --evaluate-on cifar10, digits or voc")
    return dataclasses.replace(trained, **changes)


def load_images(trial: Trial, root: Path) -> DataSet:
    """The evaluation images, normalised as the training images were.

    Raises UsageError if the folder of the trial's data is not what it was trained on, or as datasets.load.
    """
    other = trial.evaluate_on != "none"
    if (folder := class_folders.of(trial)) and not other:
        contents = class_folders.scan(str(folder)).contents
        if contents != trial.data_contents:
            raise UsageError(
                f"{folder} has {contents}, and the checkpoint is of {trial.data_contents}; put back what was there"
            )
    own: dict[str, Any] = {"data": trial.evaluate_on} if other else {}
    # One training image: none is looked at, but every data set has some.
    minimal = dataclasses.replace(trial, **own, evaluate_on="none", validation=0.0, limit_train=1)
    images = datasets.load(minimal, root)
    if not other or names.is_imagenet(trial.model):
        return images
    mean, std = datasets.STATISTICS[trial.data]
    return dataclasses.replace(images, mean=mean, std=std)


def evaluate_model(trial: Trial, model: nn.Module, images: DataSet) -> tuple[Evaluation, dict[str, Any]]:
    """(the result on the evaluation images, how it was computed: image_size, precision, device).

    Computed in the trial's precision, as training evaluates; fp16 becomes float32 on a CPU.
    """
    device = torch.device("cuda" if uses_cuda() else "cpu")
    dtype = None if trial.precision == "fp16" and device.type == "cpu" else DTYPES.get(trial.precision)
    if device.type == "cuda":
        backends.apply(trial)
    model = place(model, trial, device)
    if dtype is not None:
        model.forward = torch.autocast(device.type, dtype)(model.forward)
    how: Any = "loader" if in_files(images.evaluation) else "resident"  # so that each file is read once, and none kept
    pipeline = InputPipeline(dataclasses.replace(trial, pipeline=how), images, device)

    def batches(passes: Passes) -> Iterator[Batch]:
        # The images are passed along: a pipeline of synthetic data would generate its own.
        return pipeline.evaluate(passes, images.evaluation)

    count = len(images.evaluation)
    result = evaluate(model, batches, count, trial.evaluation_batch(), 0, 1, lambda sums: sums, images.classes)
    precision = "fp32" if dtype is None else trial.precision
    return result, {"image_size": trial.image_size, "precision": precision, "device": device.type}
