"""Predicted against measured memory, over many models: `python -m tests.perf.footprint` writes FOOTPRINT.md beside it.

`python -m tests.perf.footprint cpu` writes its first part alone, `gpu` the one of footprint_gpu.py; after gpu, names of
experiments leave out the others.

Measured: the peak of what torch's CPU allocator handed out, by its own events (torch.profiler, profile_memory=True), in
two really executed windows and an evaluation, set up as the worker does. Predicted: bench.memory.prediction, from the
trial alone. Published: what others measured on GPUs, against the prediction for CUDA.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import socket
import statistics
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torchvision
from accelerate.state import AcceleratorState
from torch import nn
from torch.profiler import ProfilerActivity, profile

from bench import experiments
from bench.data import datasets
from bench.data.pipeline import InputPipeline
from bench.features.compute import compute
from bench.features.pipeline import FeaturePipeline
from bench.machine import environment
from bench.memory.prediction import predict
from bench.training import setup
from bench.training.build import Build, model_for
from bench.training.group import Group
from bench.training.loop import evaluation_sums, train_epoch
from bench.training.meter import Meter
from bench.training.windows import epoch_windows
from bench.trial import Trial

from . import footprint_gpu

TABLE = Path(__file__).with_name("FOOTPRINT.md")
MIB, GIB = 2**20, 2**30
# ShuffleNet is an eleventh: its kernels' scratch memory is a large part of what little it takes.
FAMILIES = "vgg11 mobilenet_v3_large densenet121 convnext_tiny efficientnet_b0 vit_b_16 swin_t squeezenet1_0 mnasnet1_0"
FAMILIES += " googlenet shufflenet_v2_x1_0"
SIZES = {"vit_b_16": 224}


@dataclass(frozen=True)
class Case:
    """A trial, of a torchvision family where one is named."""

    trial: Trial
    family: str = ""

    def name(self) -> str:
        """What the case is, and where it departs from fp32, channels_last and one process."""
        t = self.trial
        words = [self.family or t.model, f"{t.arm}" if t.experiment else "", f"{t.image_size} px"]
        words += [f"{t.micro_batch}x{t.accumulate}", "fp32" if t.precision == "no" else t.precision]
        words += [f"{t.checkpoint_activations}s recomputed"] * (t.checkpoint_activations != "none")
        words += ["contiguous"] * (t.memory_format == "contiguous") + ["no momentum"] * (t.momentum == 0)
        words += [f"{t.processes} processes"] * (t.processes > 1) + [t.data] * (t.data != "synthetic")
        return ", ".join(word for word in words if word)

    def build(self) -> Build:
        """The builder of its model."""
        if not self.family:
            return model_for

        def build(trial: Trial, classes: int) -> nn.Module:
            more: dict[str, Any] = {"init_weights": False, "aux_logits": False} if self.family == "googlenet" else {}
            return getattr(torchvision.models, self.family)(num_classes=classes, **more)

        return build


def cases() -> Iterator[Case]:
    """Our models, our experiments' arms, and other families: batch sizes, precisions, layouts, processes."""
    cifar = Trial(data="synthetic")
    for precision in ("no", "bf16"):
        for micro_batch in (16, 128):
            for model in ("resnet20", "resnet56", "resnet18_cifar"):
                yield Case(replace(cifar, model=model, micro_batch=micro_batch, precision=precision))
            for model in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
                yield Case(
                    replace(cifar, model=model, micro_batch=micro_batch // 4, precision=precision, image_size=128)
                )
        for arms in ("resnet152_frozen", "resnet152_noskip"):
            for arm in experiments.load(arms).arms:
                trial = experiments.load(arms).trial(arms, arm)
                small = {"weights": "none", "data": "synthetic", "image_size": 96, "micro_batch": 8}
                small |= {"limit_train": 64, "limit_eval": 16} if trial.features == "once" else {}
                yield Case(replace(trial, **small, precision=precision))
    for more in (
        {"accumulate": 4},
        {"memory_format": "contiguous"},
        {"momentum": 0.0},
        {"data": "digits", "pipeline": "resident", "micro_batch": 128},
        {"processes": 2},
        {"processes": 2, "accumulate": 2},
        {"processes": 2, "accumulate": 2, "model": "resnet50", "image_size": 96, "micro_batch": 8},
        {"processes": 2, "model": "resnet152", "image_size": 64, "micro_batch": 4, "trainable": ("head",)},
    ):
        yield Case(replace(cifar, **more))
    for unit in ("block", "stage"):
        for more in (
            {"micro_batch": 128},
            {"micro_batch": 128, "precision": "bf16", "accumulate": 2},
            {"model": "resnet50", "image_size": 128},
            {"model": "resnet152", "image_size": 96, "micro_batch": 8, "precision": "bf16"},
        ):
            yield Case(replace(cifar, checkpoint_activations=unit, **more))
    for family in FAMILIES.split():
        for micro_batch in (8, 32):
            for precision in ("no", "bf16"):
                size = SIZES.get(family, 128)
                yield Case(replace(cifar, micro_batch=micro_batch, precision=precision, image_size=size), family)


def replace(trial: Trial, **changes: Any) -> Trial:
    """The trial with these changes."""
    return dataclasses.replace(trial, **changes)


def predicted_bytes(case: Case) -> int:
    """By bench.memory.prediction, for a CPU."""
    return predict(case.trial, "cpu", case.build()).allocated_bytes


def measured_bytes(case: Case) -> int:
    """By the allocator's own events; with several processes, rank 0's."""
    if case.trial.processes == 1:
        return train_profiled(case)
    context, port = get_context("spawn"), free_port()
    ours, theirs = context.Pipe()
    ranks = [context.Process(target=_rank, args=(case, rank, port, theirs)) for rank in range(case.trial.processes)]
    for process in ranks:
        process.start()
    theirs.close()
    for process in ranks:
        process.join()
    return ours.recv()


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _rank(case: Case, rank: int, port: int, answer: Connection) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(case.trial.processes)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(case.trial.processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    measured = train_profiled(case)
    torch.distributed.destroy_process_group()
    if rank == 0:
        answer.send(measured)


def train_profiled(case: Case) -> int:
    """Train two windows and evaluate as the worker does, under the profiler; the peak."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    AcceleratorState._reset_state(reset_partial_state=True)
    trial = case.trial
    with quiet():
        group = Group(trial)
        gc.collect()  # what an earlier case left would be seen to be freed in this one
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            found = datasets.load(trial, Path())
            feed = (InputPipeline if trial.features == "each_epoch" else FeaturePipeline)(trial, found, group.device)
            training = setup.training(trial, group, case.build(), found.classes)
            if isinstance(feed, FeaturePipeline):
                compute(trial, feed, training, group, Path())
            windows = list(
                epoch_windows(
                    2 * trial.effective_batch(), trial.micro_batch, trial.accumulate, trial.processes, group.rank
                )
            )
            batches = feed.train(0, [a_pass for window in windows for a_pass in window.passes])
            meter = Meter([], group.gather, 0, group.device)
            train_epoch(training, windows, batches, meter, lambda window: trial.lr, lambda rows: None)
            evaluation_sums(training.part, feed.evaluate([(0, trial.micro_batch)]), found.classes)
    events = profiler.profiler.kineto_results.events()
    return peak(sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"))


def peak(events: list[tuple[int, int]]) -> int:
    """The highest sum of these changes in bytes, in the order of their times."""
    now = most = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


class quiet:
    """Nothing on stderr in here, where the profiler's library talks without being asked."""

    def __enter__(self) -> None:
        warnings.simplefilter("ignore")
        sys.stderr.flush()
        self.kept = os.dup(2)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)

    def __exit__(self, *_: object) -> None:
        os.dup2(self.kept, 2)
        os.close(self.kept)


@dataclass(frozen=True)
class Published:
    """A peak that someone else measured with max_memory_allocated."""

    trial: Trial
    gib: float
    where: str


AT_224 = Trial(data="synthetic", model="resnet50", image_size=224, memory_format="contiguous")
PUBLISHED = (
    Published(replace(AT_224, micro_batch=184, momentum=0.0), 15.06, "forward and backward: README of utsaslab/MONeT"),
    Published(replace(AT_224, micro_batch=96), 8.05, "training with SGD: ZJCV/ZCls"),
)


def main() -> None:
    """Write the file, or the part that is named."""
    part, names = ([*sys.argv[1:], "both"])[0], sys.argv[2:]
    if part not in ("both", "cpu", "gpu"):
        sys.exit(f"{part!r} is no part; give cpu or gpu, or neither")
    cpu, mark, gpu = TABLE.read_text().partition(footprint_gpu.TITLE)
    cpu = on_cpus() if part != "gpu" else cpu
    gpu = footprint_gpu.section(names) if part != "cpu" else mark + gpu
    TABLE.write_text(f"{cpu.rstrip()}\n\n{gpu}")


def on_cpus() -> str:
    """The first part: run all cases."""
    rows: list[tuple[str, int, int]] = []
    for case in cases():
        predicted, measured = predicted_bytes(case), measured_bytes(case)
        rows.append((case.name(), predicted, measured))
        print(row_of(*rows[-1]), flush=True)
    print(summary(rows))
    return table(rows)


def error_of(predicted: float, measured: float) -> float:
    """Relative error of the prediction."""
    return predicted / measured - 1


def row_of(name: str, predicted: float, measured: float, unit: float = MIB) -> str:
    """A line of the table."""
    return f"| {name} | {predicted / unit:.2f} | {measured / unit:.2f} | {error_of(predicted, measured):+.2%} |"


def summary(rows: list[tuple[str, int, int]]) -> str:
    """The errors of all rows in a sentence."""
    errors = {name: abs(error_of(predicted, measured)) for name, predicted, measured in rows}
    worst = max(errors, key=errors.__getitem__)
    beyond = sum(error > 0.03 for error in errors.values())
    return (
        f"{len(rows)} cases: median error {statistics.median(errors.values()):.2%}, worst {errors[worst]:.2%} "
        f"({worst}), {beyond} above 3%"
    )


def table(rows: list[tuple[str, int, int]]) -> str:
    """The whole file."""
    machine = environment.machine()
    against = [
        row_of(
            f"{p.trial.model}, {p.trial.image_size} px, {p.trial.micro_batch}, fp32; {p.where}",
            predict(p.trial, "cuda", classes=1000).allocated_bytes,
            p.gib * GIB,
            GIB,
        )
        for p in PUBLISHED
    ]
    return "\n".join(
        [
            "# Predicted and measured memory",
            "",
            "Written by `python -m tests.perf.footprint`; how, stands at the head of that file. " + summary(rows) + ".",
            "{cpu_model}, {cpu_count} CPUs, torch {torch}, commit {commit}.".format(**machine),
            "",
            "| case | predicted MiB | measured MiB | error |",
            "| --- | --- | --- | --- |",
            *(row_of(*row) for row in rows),
            "",
            "Against published peaks of GPUs (1000 classes):",
            "",
            "| case and source | predicted GiB | published GiB | error |",
            "| --- | --- | --- | --- |",
            *against,
            "",
        ]
    )


if __name__ == "__main__":
    main()
