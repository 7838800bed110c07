"""The peak memory of a trial, from its settings alone.

`predict` traces two training steps and returns a Footprint, which holds the peak: on CUDA as caching_allocator.py
simulates it. `largest_micro_batch` searches with it.

Not included: what CUDA's context and NCCL take outside the caching allocator, and cuDNN's workspaces, which depend on
the GPU. Included: cuBLAS's, and the scratch memory of torch's own CUDA kernels (`cuda_workspaces`).
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import torch
from torch._subclasses import fake_tensor

from bench.data import datasets
from bench.data.dataset import DataSet, Split
from bench.data.pipeline import FEWEST, least_for_resident
from bench.errors import UsageError, reason
from bench.instruments.storage_tracker import StorageTracker
from bench.memory import trace
from bench.memory.cuda_workspaces import Capability
from bench.memory.footprint import Backend, Footprint, at_batch, settled
from bench.memory.known_operations import KnownOperations
from bench.memory.onednn import OneDNNWorkspaces
from bench.memory.trace import GPU, most_images
from bench.training.build import Build, model_for, place, updated_model
from bench.trial import Trial

UNTRACEABLE = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
    fake_tensor.UnsupportedOperatorException,
    fake_tensor.UnsupportedFakeTensorException,
    NotImplementedError,
)


def predict(
    trial: Trial,
    backend: Backend = "cuda",
    build: Build = model_for,
    classes: int | None = None,
    capability: Capability | None = None,
    last_window: bool = True,
) -> Footprint:
    """The memory of one process of this trial.

    `accumulate` is traced up to 2: further micro-batches repeat the second. `classes`: by default those of the data.
    `capability`: the CUDA device's, if it is known. `last_window`: also trace that of an epoch, whose
    other sizes can make CUDA's allocator reserve more.
    Raises UsageError if an operation of the model needs data to run, or if the model is compiled.
    """
    if trial.compile != "none":
        raise UsageError(f"--compile is {trial.compile}, which changes what the backward pass keeps; plan with none")
    if backend == "cpu" and trial.evaluate_on != "none":
        raise UsageError(
            f"--evaluate-on is {trial.evaluate_on}, whose images a prediction does not include; plan with none"
        )
    # Trained weights have the sizes of fresh ones, and need no file here.
    trial = dataclasses.replace(trial, weights="none", accumulate=min(trial.accumulate, 2))
    data = shapes(trial)
    classes = classes or data.classes
    convolutions = OneDNNWorkspaces()
    tracker = StorageTracker(convolutions) if backend == "cpu" else StorageTracker(device=GPU)
    try:
        with torch.device("meta"), trace.ConstructorArithmetic():
            module = place(build(trial, classes), trial, torch.device("meta"))
            updated = updated_model(trial, module, build, classes)
        with fake_tensor.FakeTensorMode() as mode:
            tracker.run = KnownOperations(mode)
            models = [module] if updated is module else [module, updated]
            del module, updated  # the list has the only references, see trace.train
            trace.train(trial, backend, models, data, tracker, capability, last_window)
    except UNTRACEABLE as error:
        operation = getattr(error, "func", None) or reason(error)
        raise UsageError(f"{trial.model} cannot be traced: {operation} needs data, or has no fake version") from error
    code_bytes = convolutions.code_bytes(trial.epochs)
    order = tuple(settled(tracker.order))
    return Footprint(backend, tuple(tracker.sizes), tuple(tracker.parts), order, code_bytes)


def limits_alike(trial: Trial) -> tuple[int, int | None]:
    """The memory limits under which this trial takes the same on CUDA: from the first up to below the second, or all.

    A limit decides there what `pipeline_for` chooses. Not for features that are computed once: where they are kept
    depends on it too.
    """
    if trial.pipeline != "auto" or trial.data == "synthetic":
        return 0, None
    least = least_for_resident(shapes(trial))
    return (0, least) if (trial.memory_limit_bytes or math.inf) < least else (least, None)


def largest_micro_batch(
    trial: Trial, limit_bytes: int, backend: Backend = "cuda", capability: Capability | None = None
) -> tuple[int, Footprint]:
    """The largest micro-batch that fits under the limit, and its footprint; usually takes 4 traces.

    Two traces give nearly every size at any batch by interpolation. A third confirms the answer, and a fourth that the
    next larger batch does not fit. Scratch memory that is not linear in the batch may take more traces. At most
    `most_images`. Raises UsageError if not even the smallest micro-batch fits.
    """

    def traced(micro_batch: int) -> Footprint:
        # Without the epoch's last window, which fits if the others do.
        return predict(
            dataclasses.replace(trial, micro_batch=micro_batch), backend, capability=capability, last_window=False
        )

    most = most_images(trial, shapes(trial))
    two = {batch: traced(batch) for batch in (FEWEST, 2 * FEWEST)}
    smallest = two[FEWEST]
    if not smallest.fits(limit_bytes):
        raise UsageError(
            f"a limit of {limit_bytes} bytes is too small for {trial.model} at any micro-batch: {FEWEST} images "
            f"take {smallest.allocated_bytes}, the weights alone {smallest.parts.get('weights', 0)}; give a larger one"
        )
    low, high = FEWEST, most + 1  # bisection: low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        if at_batch(middle, two).fits(limit_bytes):
            low = middle
        else:
            high = middle
    answer = traced(low)
    while low > FEWEST and not answer.fits(limit_bytes):
        low, answer = low - 1, traced(low - 1)
    while low < most and (larger := traced(low + 1)).fits(limit_bytes):
        low, answer = low + 1, larger
    return low, answer


def shapes(trial: Trial) -> DataSet:
    """The trial's data set with the right sizes. Of CIFAR-10, which may not be here, without content."""
    if trial.data == "voc":
        raise UsageError("--data is voc, whose number of objects is unknown before it is read; plan with cifar10")
    if trial.data != "cifar10":
        return datasets.load(dataclasses.replace(trial, evaluate_on="none"), Path())
    classes = len(trial.classes) or 10

    def split(images: int, limit: int | None) -> Split:
        count = min(images * classes // 10, limit or images)
        return Split(torch.zeros(1, dtype=torch.uint8).expand(count, 3, 32, 32), torch.zeros(1).long().expand(count))

    train = 50_000 - round(trial.validation * 50_000)
    return DataSet(split(train, trial.limit_train), split(10_000, trial.limit_eval), classes, (0, 0, 0), (1, 1, 1))
