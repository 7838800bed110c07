"""The peak memory of a trial, from its settings alone.

The trial's model, input pipeline, optimizer, training loop and evaluation run as in the worker, on tensors that have
sizes and no data; every storage is followed from birth to death, and the caching allocator replays them. Needs no
GPU: tensors "on the GPU" are fake ones on a CPU of another index, under the CPU's autocast, which casts the same
operations of these networks.

Not in it: what CUDA's context and NCCL take outside the allocator, and cuDNN's workspaces, which depend on the GPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from accelerate.utils.operations import convert_outputs_to_fp32
from torch import Tensor, nn
from torch._subclasses import fake_tensor

from bench.data import datasets
from bench.data.dataset import DataSet, Split
from bench.data.pipeline import FEWEST, Batch, InputPipeline
from bench.errors import UsageError
from bench.instruments.storage_tracker import StorageTracker
from bench.memory.cuda_workspaces import Capability, CudaWorkspaces, FusedDropout, size_of
from bench.memory.ddp import SimulatedDDP
from bench.memory.footprint import Backend, Footprint, at_batch, settled
from bench.memory.onednn import OneDNNWorkspaces
from bench.training.build import DTYPES, Build, model_for, optimizer_for, place, updated_model
from bench.training.loop import Training, backward_with, evaluation_sums, kept_casts, train_epoch
from bench.training.meter import Meter
from bench.training.windows import Window, share
from bench.trial import Trial

HOST = torch.device("cpu")
# Fake tensors "on the GPU" differ from those in the host's memory by this index alone.
GPU = torch.device("cpu", 0)
COUNTED_FROM = 3  # warm-up windows, of which one is then counted (bench/probes/operations.py)
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
    last: bool = True,
) -> Footprint:
    """The memory of one process of this trial, from two windows: only the second finds the optimizer's state in place.

    `accumulate` is followed up to 2: further micro-batches repeat the second. `classes`: by default those of the data.
    `capability`: the CUDA device's, where it is known. `last`: also from an epoch's last window, whose sizes are
    others, so that on CUDA more may be reserved.
    UsageError: an operation of the model needs data to run, or the model is compiled.
    """
    if trial.compile != "none":
        raise UsageError("--compile changes what is kept for the backward pass, which cannot be traced; plan without")
    if backend == "cpu" and trial.evaluate_on != "none":
        raise UsageError(f"the images of --evaluate-on {trial.evaluate_on} are not in a prediction; plan with none")
    # Trained weights have the sizes of fresh ones, and need no file here.
    trial = dataclasses.replace(trial, weights="none", accumulate=min(trial.accumulate, 2))
    found = shapes(trial)
    classes = classes or found.classes
    convolutions = OneDNNWorkspaces()
    tracker = StorageTracker(convolutions) if backend == "cpu" else StorageTracker(device=GPU)
    try:
        with torch.device("meta"):
            module = place(build(trial, classes), trial, torch.device("meta"))
            held = updated_model(trial, module, build, classes)
        with fake_tensor.FakeTensorMode():
            models = [module] if held is module else [module, held]
            del module, held  # a second one goes once the optimizer has its parameters, as in the worker
            _train(trial, backend, models, found, tracker, capability, last)
    except UNTRACEABLE as error:
        operation = getattr(error, "func", None) or " ".join(str(error).split())[:200]
        raise UsageError(f"{trial.model} cannot be traced: {operation} needs data, or has no fake version") from error
    code_bytes = convolutions.code_bytes(trial.epochs)
    order = settled(tracker.order)
    return Footprint(backend, tuple(tracker.sizes), tuple(tracker.parts), order, code_bytes)


def largest_micro_batch(
    trial: Trial, limit_bytes: int, backend: Backend = "cuda", capability: Capability | None = None
) -> tuple[int, Footprint]:
    """The largest micro-batch whose training goes through with this much, and its footprint; mostly 4 traces.

    Two traces give nearly every size at any batch, a third confirms the answer and a fourth that its neighbour does not
    fit; where scratch memory is no line, it may take one more. The images that a process has in an epoch are the most
    there can be. UsageError: not even the smallest fits.
    """

    def traced(micro_batch: int) -> Footprint:
        # An epoch's last window fits where the others do.
        return predict(dataclasses.replace(trial, micro_batch=micro_batch), backend, capability=capability, last=False)

    most = most_images(trial, shapes(trial))
    known = {batch: traced(batch) for batch in (FEWEST, 2 * FEWEST)}
    if not known[FEWEST].fits(limit_bytes):
        parts = known[FEWEST].parts
        raise UsageError(
            f"a limit of {limit_bytes} bytes is too small for {trial.model} at any micro-batch: {FEWEST} images "
            f"take {known[FEWEST].allocated_bytes}, the weights alone {parts.get('weights', 0)}"
        )
    low, high = FEWEST, most + 1  # low fits; high does not, or has no images
    while high - low > 1:
        middle = (low + high) // 2
        if at_batch(middle, known).fits(limit_bytes):
            low = middle
        else:
            high = middle
    answer = traced(low)
    while low > FEWEST and not answer.fits(limit_bytes):
        low, answer = low - 1, traced(low - 1)
    while low < most and (larger := traced(low + 1)).fits(limit_bytes):
        low, answer = low + 1, larger
    return low, answer


def most_images(trial: Trial, found: DataSet) -> int:
    """The most that a micro-batch can be: the images that a process has in an epoch."""
    return max(FEWEST, len(found.train) // trial.processes)


def shapes(trial: Trial) -> DataSet:
    """The trial's data with the right sizes and, where it is not in the package, no content."""
    if trial.data == "voc":
        raise UsageError("how many objects voc has is not known before it is read; plan with --data cifar10")
    if trial.data != "cifar10":
        return datasets.load(dataclasses.replace(trial, evaluate_on="none"), Path())
    classes = len(trial.classes) or 10

    def split(images: int, limit: int | None) -> Split:
        count = min(images * classes // 10, limit or images)
        return Split(torch.zeros(1, dtype=torch.uint8).expand(count, 3, 32, 32), torch.zeros(1).long().expand(count))

    train = 50_000 - round(trial.validation * 50_000)
    return DataSet(split(train, trial.limit_train), split(10_000, trial.limit_eval), classes, (0, 0, 0), (1, 1, 1))


class FakePipeline(InputPipeline):
    """The trial's input pipeline, without the worker processes of the loader: their batches come as they would."""

    def __init__(self, trial: Trial, found: DataSet, device: torch.device, free: float | None) -> None:
        super().__init__(trial, found, device, free)
        self.mean, self.std = self.mean.to(device), self.std.to(device)  # torch.tensor knows one CPU alone

    def _load(self, split: Split, batches: Sequence[Tensor], augment: tuple[bool, bool]) -> Iterator[Batch]:
        for batch in batches:
            images = torch.empty((len(batch), *split.images.shape[1:]), dtype=split.images.dtype)
            yield images.to(self.device), torch.empty(len(batch), dtype=torch.int64).to(self.device)


def _train(
    trial: Trial,
    backend: Backend,
    models: list[nn.Module],
    found: DataSet,
    tracker: StorageTracker,
    capability: Capability | None,
    last: bool,
) -> None:
    """Set up and train as the worker does, one rank of the trial's group. `models`: what trains, what is updated."""
    module = models[0]
    device = HOST if tracker.device is None else tracker.device
    with tracker:
        tracker.part = "input"
        feed = _feed(trial, backend, found, device)
        tracker.part = "weights"
        _materialise(module, device, tracker)
        tracker.part = "activations"
        if backend == "cuda":
            tracker.transient_bytes = CudaWorkspaces(tracker, capability)
        if trial.precision != "no":  # as Accelerate's prepare_model
            cast = torch.autocast("cpu", dtype=DTYPES[trial.precision])
            module.forward = convert_outputs_to_fp32(cast(module.forward))
        model = SimulatedDDP(module, trial, tracker)
        if models[1:]:
            tracker.part = "weights"
            _materialise(models[1], device, tracker)
        tracker.part = "optimizer"
        optimizer = optimizer_for(trial, models.pop())
        tracker.part = "activations"
        scaler = (
            torch.amp.GradScaler("cpu") if trial.precision == "fp16" and trial.optimizer_holds == "this_model" else None
        )
        training = Training(
            model=model,
            module=module,
            optimizer=optimizer,
            processes=trial.processes,
            backward=backward_with(scaler),
            no_sync=model.no_sync,
            kept_casts=contextlib.nullcontext if trial.precision == "no" else functools.partial(kept_casts, HOST),
            scaler=scaler,
        )
        with FusedDropout() if backend == "cuda" else contextlib.nullcontext():
            _windows(trial, training, feed, tracker, last)


def _windows(trial: Trial, training: Training, feed: InputPipeline, tracker: StorageTracker, last: bool) -> None:
    """A window of one micro-batch, which makes the optimizer's state, one of all, the epoch's `last`; an evaluation."""
    most = most_images(trial, feed.data)
    images = min(trial.micro_batch, most)
    passes = [[(0, images)], [(0, images)] * trial.accumulate]
    left = len(feed.data.train) % (trial.micro_batch * trial.processes)
    if last and left and images < most:
        passes.append([(0, share(0, left, trial.processes, 0)[1])])
    windows = [Window(index, images * len(each), each) for index, each in enumerate(passes)]
    batches = feed.train(0, [a_pass for window in windows for a_pass in window.passes])
    meter = Meter([], lambda numbers: [numbers], 0, HOST)

    def begun() -> Iterator[Window]:
        for window in windows:
            # The second has its operations counted, where any has: then no gradient is added in place.
            tracker.adds_in_place = trial.warmup_windows < COUNTED_FROM or window.index != 1
            yield window

    train_epoch(training, begun(), _input(batches, tracker), meter, lambda window: trial.lr, lambda rows: None)
    evaluated = [(0, min(trial.evaluation_batch(), len(feed.data.evaluation)))]
    evaluation_sums(training.module, _input(feed.evaluate(evaluated), tracker), feed.data.classes)


def _feed(trial: Trial, backend: Backend, found: DataSet, device: torch.device) -> InputPipeline:
    """The input pipeline. With CUDA the data set itself stays with the host."""
    if backend == "cpu" and trial.data == "cifar10":
        # torchvision stacks five arrays to one, and each process reads all classes and images.
        torch.empty((2, 50_000, 3, 32, 32), dtype=torch.uint8)
    fake = dataclasses.replace(found, train=_fake(found.train), evaluation=_fake(found.evaluation))
    # Of another machine's GPU nothing is known but the trial's limit.
    return FakePipeline(trial, fake, device, free=math.inf if backend == "cuda" else None)


def _fake(split: Split) -> Split:
    return Split(*(torch.empty(part.shape, dtype=part.dtype) for part in (split.images, split.labels)))


def _input(batches: Iterator[Batch], tracker: StorageTracker) -> Iterator[Batch]:
    """The same batches, counted as input."""
    while True:
        tracker.part = "input"
        batch = next(batches, None)
        tracker.part = "activations"
        if batch is None:
            return
        yield batch


def _materialise(module: nn.Module, device: torch.device, tracker: StorageTracker) -> None:
    """Give a model on the meta device fake parameters and buffers of the same strides, in the order of Module.to."""
    for child in module.children():
        _materialise(child, device, tracker)

    def empty(like: Tensor) -> Tensor:
        made = torch.empty_strided(like.size(), like.stride(), dtype=like.dtype, device=device)
        if device == GPU and not made.is_contiguous():
            with tracker.besides([size_of(made)]):  # it arrives as it lay with the host
                return made
        return made

    for name, parameter in module.named_parameters(recurse=False):
        setattr(module, name, nn.Parameter(empty(parameter), parameter.requires_grad))
    for name, buffer in module.named_buffers(recurse=False):
        setattr(module, name, empty(buffer))
