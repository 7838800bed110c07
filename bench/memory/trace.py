"""Training steps on fake tensors, which have sizes and no data, with every storage recorded.

The trial's input pipeline, optimizer, training loop and evaluation run as in the worker. No GPU is needed: tensors "on
the GPU" are fake ones on a CPU of another index, under the CPU's autocast, which casts the same operations of these
networks as CUDA's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate.utils.operations import convert_outputs_to_fp32
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.data.dataset import DataSet, Split, in_files
from bench.data.pipeline import FEWEST, Batch, InputPipeline, free_bytes, free_for, pipeline_for
from bench.features.backbone import Backbone
from bench.features.compute import computed
from bench.features.pipeline import FeaturePipeline
from bench.features.store import place_for
from bench.instruments.storage_tracker import StorageTracker
from bench.memory.cuda_workspaces import Capability, CudaWorkspaces, FusedDropout
from bench.memory.ddp import SimulatedDDP
from bench.memory.footprint import Backend
from bench.training.build import DTYPES, keeps_casts, optimizer_for, trained_part
from bench.training.loop import Training, backward_with, evaluation_sums, kept_casts, train_epoch
from bench.training.meter import Meter
from bench.training.windows import Window, share
from bench.trial import Trial
from models import backbone

HOST = torch.device("cpu")
# Fake tensors "on the GPU" differ from those in host memory only by this index.
GPU = torch.device("cpu", 0)
# How tensors are made of numbers. A parameter is made by none of them.
COMPUTED = (torch.arange, torch.linspace, torch.tensor)
SET = (Tensor.zero_, Tensor.fill_, Tensor.normal_, Tensor.uniform_)  # how parameters get their first values
COUNTED_FROM = 3  # with so many warm-up windows, one of them has its operations counted (bench/probes/operations.py)


class ConstructorArithmetic(TorchFunctionMode):
    """Has the numbers that a constructor computes with, such as RegNet's widths, although its parameters have none.

    Those get no values either, which torch would take long for.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in SET and args[0].is_meta:
            return args[0]
        return func(*args, **({"device": HOST, **kwargs} if func in COMPUTED else kwargs))


def most_images(trial: Trial, data: DataSet) -> int:
    """The largest micro-batch there can be: all images that a process has in an epoch."""
    return max(FEWEST, len(data.train) // trial.processes)


class FakePipeline(InputPipeline):
    """The trial's input pipeline without the loader's worker processes. Batches have the sizes of real ones."""

    def _load(self, split: Split, batches: Sequence[Tensor], augment: tuple[bool, bool]) -> Iterator[Batch]:
        for batch in batches:
            images = torch.empty((len(batch), *split.images.shape[1:]), dtype=split.images.dtype)
            yield images.to(self.device), torch.empty(len(batch), dtype=torch.int64).to(self.device)


def train(
    trial: Trial,
    backend: Backend,
    models: list[nn.Module],
    data: DataSet,
    tracker: StorageTracker,
    capability: Capability | None,
    last: bool,
) -> None:
    """Set up and train as one rank of the trial's group. The tracker records the storages.

    `models`: the one that trains and, if it is another, the one that the optimizer updates. The latter is taken out of
    the list, so that it can be released as in the worker. `capability`, `last`: see `prediction.predict`.
    """
    module = models[0]
    device = HOST if tracker.device is None else tracker.device
    with tracker:
        tracker.part = "input"
        pipeline = _pipeline(trial, backend, data, device)
        tracker.part = "weights"
        _materialise(module, device, tracker)
        part = trained_part(trial, module)
        tracker.part = "activations"
        if backend == "cuda":
            tracker.transient_bytes = CudaWorkspaces(tracker, capability)
        if trial.precision != "no":  # as Accelerate's prepare_model
            part.forward = convert_outputs_to_fp32(_autocast(trial)(part.forward))
        model = SimulatedDDP(part, trial, tracker)
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
            part=part,
            optimizer=optimizer,
            processes=trial.processes,
            backward=backward_with(scaler),
            no_sync=model.no_sync,
            kept_casts=functools.partial(kept_casts, HOST) if keeps_casts(trial) else contextlib.nullcontext,
            scaler=scaler,
        )
        if isinstance(pipeline, FeaturePipeline):
            _compute_features(trial, backend, module, pipeline, tracker)
        with FusedDropout() if backend == "cuda" else contextlib.nullcontext():
            _run_windows(trial, training, pipeline, tracker, last)


def _run_windows(
    trial: Trial, training: Training, pipeline: InputPipeline, tracker: StorageTracker, last: bool
) -> None:
    """Train on a window of one micro-batch, a full one, and if `last` an epoch's short last one. Then evaluate.

    The first one is run because later ones differ: only then are the optimizer's state and DDP's buckets final.
    """
    most = most_images(trial, pipeline.data)
    images = min(trial.micro_batch, most)
    passes = [[(0, images)], [(0, images)] * trial.accumulate]
    left = len(pipeline.data.train) % (trial.micro_batch * trial.processes)
    if last and left and images < most:
        passes.append([(0, share(0, left, trial.processes, 0)[1])])
    windows = [Window(index, images * len(each), each) for index, each in enumerate(passes)]
    batches = pipeline.train(0, [a_pass for window in windows for a_pass in window.passes])
    meter = Meter([], lambda numbers: [numbers], 0, HOST)

    def prepared() -> Iterator[Window]:
        for window in windows:
            # If operations are counted at all, then in the second window. Under a dispatch mode, which counts them,
            # autograd adds no gradient in place.
            tracker.adds_in_place = trial.warmup_windows < COUNTED_FROM or window.index != 1
            yield window

    train_epoch(training, prepared(), _as_input(batches, tracker), meter, lambda window: trial.lr, lambda rows: None)
    evaluated = [(0, min(trial.evaluation_batch(), len(pipeline.data.evaluation)))]
    evaluation_sums(training.part, _as_input(pipeline.evaluate(evaluated), tracker), pipeline.data.classes)


def _autocast(trial: Trial) -> torch.autocast:
    return torch.autocast("cpu", dtype=DTYPES.get(trial.precision), enabled=trial.precision != "no")


@torch.no_grad()
def _compute_features(
    trial: Trial, backend: Backend, module: nn.Module, pipeline: FeaturePipeline, tracker: StorageTracker
) -> None:
    """Fill the pipeline as `bench.features.compute` does, with one pass over each size of batch."""
    kept = pipeline.parts(rank=0)
    rows = kept[-1].row + kept[-1].stop - kept[-1].start
    evaluated = min(kept[0].stop, kept[0].start + trial.evaluation_batch())
    store: Tensor | None = None

    def run(images: Tensor, trains: bool) -> Tensor:
        with _autocast(trial):
            return backbone.features(module, images)

    span, parts = (0, min(pipeline.pass_size(), pipeline.train_rows)), [dataclasses.replace(kept[0], stop=evaluated)]
    for row, found in computed(pipeline, run, span, parts):
        if store is None:
            tracker.part = "input"
            store = _store(trial, backend, found, rows, pipeline.device)
            tracker.part = "activations"
        store[row : row + len(found)] = found.to(store.device)
    assert store is not None
    pipeline.fill(store, Backbone(module, pipeline.device, functools.partial(_autocast, trial)), kept)


def _store(trial: Trial, backend: Backend, features: Tensor, rows: int, device: torch.device) -> Tensor:
    """Memory for so many rows of such features. What lies in a file takes none."""
    on_gpu = backend == "cuda"
    free = math.inf if on_gpu else free_bytes(trial, HOST)
    size = rows * features.shape[1] * features.element_size()
    place = place_for(trial, size, torch.device(backend), free, free)
    if place == "file":
        return torch.empty((1, features.shape[1]), dtype=features.dtype).expand(rows, -1)
    return torch.empty((rows, features.shape[1]), dtype=features.dtype, device=device if place == "device" else HOST)


def _pipeline(trial: Trial, backend: Backend, data: DataSet, device: torch.device) -> InputPipeline:
    """The input pipeline. On CUDA the data set itself is in host memory."""
    if backend == "cpu" and trial.data == "cifar10":
        # What reading CIFAR-10 takes at its peak: torchvision stacks five arrays to one, for all classes and images.
        torch.empty((2, 50_000, 3, 32, 32), dtype=torch.uint8)
    # Nothing is known about the GPU, which may be another machine's; only the trial's limit counts.
    free = math.inf if backend == "cuda" else free_for(trial, data, device)
    # What loader workers, or one pass of a backbone, read from files is never in memory as a whole.
    whole = trial.features == "each_epoch" and pipeline_for(trial, data, free) == "resident"
    held = whole or not in_files(data.train)
    fake = dataclasses.replace(data, train=_fake(data.train, held), evaluation=_fake(data.evaluation, held))
    make = FakePipeline if trial.features == "each_epoch" else FeaturePipeline
    pipeline = make(trial, fake, device, free=free)
    pipeline.mean, pipeline.std = pipeline.mean.to(device), pipeline.std.to(device)  # torch.tensor ignores the index
    return pipeline


def _fake(split: Split, held: bool) -> Split:
    one = split.images.shape if held else (1,)
    images = torch.empty(one, dtype=split.images.dtype).expand(split.images.shape)
    return Split(images, torch.empty(split.labels.shape, dtype=split.labels.dtype))


def _as_input(batches: Iterator[Batch], tracker: StorageTracker) -> Iterator[Batch]:
    """The same batches, recorded as input."""
    while True:
        tracker.part = "input"
        batch = next(batches, None)
        tracker.part = "activations"
        if batch is None:
            return
        yield batch


def _materialise(module: nn.Module, device: torch.device, tracker: StorageTracker) -> None:
    """Replace parameters and buffers on the meta device by fake ones on `device`, in the order of Module.to."""
    for child in module.children():
        _materialise(child, device, tracker)

    def empty(like: Tensor) -> Tensor:
        fake = torch.empty_strided(like.size(), like.stride(), dtype=like.dtype, device=device)
        if device == GPU and not fake.is_contiguous():
            with tracker.workspace([fake.nbytes]):  # the copy from the host, before its memory format is changed
                return fake
        return fake

    for name, parameter in module.named_parameters(recurse=False):
        setattr(module, name, nn.Parameter(empty(parameter), parameter.requires_grad))
    for name, buffer in module.named_buffers(recurse=False):
        setattr(module, name, empty(buffer))
