"""Features that are computed once: what follows from them is what follows from computing them in each epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import planted
import pytest
import torch
from torch import Tensor, nn

from bench.data.dataset import DataSet
from bench.data.pipeline import InputPipeline
from bench.errors import UsageError
from bench.features import store
from bench.features.compute import compute
from bench.features.pipeline import FeaturePipeline
from bench.training.build import model_for, optimizer_for, place, trained_part
from bench.training.evaluation import after_epoch
from bench.training.loop import Training
from bench.trial import Trial

CPU = torch.device("cpu")
FROZEN: dict[str, Any] = {"trainable": ("head",), "batch_norm": "eval", "augment": "flip", "data": "cifar10"}
SIZES = {"evaluation": 7, "validation": 5, "evaluate_on": 3}


def frozen(**changes: Any) -> Trial:
    return planted.small(**{**FROZEN, "pipeline": "resident", "epochs": 3, **changes})


def images(trial: Trial, root: Path, train: int = 24) -> DataSet:
    """Noise to train on, and to evaluate on after each epoch and after the last one."""
    found = planted.noise(trial, root, train)
    parts = {name: planted.noise(trial, root, evaluation=count).evaluation for name, count in SIZES.items()}
    return dataclasses.replace(
        found, evaluation=parts["evaluation"], validation=parts["validation"], other=parts["evaluate_on"]
    )


MEASURES = {
    "steps": ("train_loss", "train_accuracy"),
    "epochs": ("eval_loss", "eval_accuracy", "validation_loss"),
    "trials": ("evaluate_on_loss", "optimizer_steps", "images_seen", "total_parameters", "trainable_parameters"),
}


def results(ran: planted.Ran) -> dict[str, list[str]]:
    return {name: [row[name] for row in ran.rows(file)] for file, names in MEASURES.items() for name in names}


def same(one: planted.Ran, other: planted.Ran) -> bool:
    """Whether results, final weights and momentum are equal to the last bit."""
    states = [planted.well(ran).state() for ran in (one, other)]
    models = [state["model"] for state in states]
    momenta = [[each["momentum_buffer"] for each in state["optimizer"]["state"].values()] for state in states]
    assert models[0].keys() == models[1].keys()
    weights = all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    return results(one) == results(other) and weights and all(map(torch.equal, *momenta))


# Windows of full micro-batches. In bf16, kernels round alike at each size of a batch, and the last one may be short.
# Dropout in the head draws the same random numbers only if nothing else draws any.
CASES: tuple[tuple[int, dict[str, Any]], ...] = (
    (24, {"accumulate": 2}),
    (29, {"accumulate": 2, "precision": "bf16", "head": (8,), "dropout": (0.5,)}),
    (29, {"precision": "bf16"}),
)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("train", "changes"), CASES, ids=str)
def test_a_trial_is_the_long_way_s_to_the_last_bit(
    train: int, changes: dict[str, Any], processes: int, tmp_path: Path
) -> None:
    trial = frozen(micro_batch=4, processes=processes, **changes)
    load = functools.partial(images, train=train)
    once = planted.run(tmp_path / "once", dataclasses.replace(trial, features="once"), load=load)
    assert same(planted.run(tmp_path / "each", trial, load=load), once)
    row = once.row()
    assert (row["input_pipeline"], row["feature_place"]) == ("features", "host")
    own = [-(-SIZES[part] // processes) for part in ("evaluation", "validation")]
    each = 64 * (2 if trial.precision == "bf16" else 4)
    assert int(row["feature_bytes"]) == each * (2 * train + sum(own))
    assert 0 < float(row["feature_pass_s"]) < float(row["duration_s"])
    assert [epoch["feature_pass_s"] for epoch in once.rows("epochs")] == [row["feature_pass_s"], "", ""]
    assert [path for path in once.folder.iterdir() if "features" in path.name] == []


def breaking_head(trial: Trial, classes: int, at: int) -> nn.Module:
    """A model whose head breaks in this pass of training."""
    model = model_for(trial, classes)
    planted.failing(trial, classes, at, "raise", build=lambda *_: model.get_submodule("fc"))
    return model


def test_a_trial_that_resumes_is_the_one_that_never_broke(tmp_path: Path) -> None:
    trial = frozen(micro_batch=8, features="once")
    whole = planted.run(tmp_path / "whole", trial, load=images)
    broken = planted.run(tmp_path / "broken", trial, functools.partial(breaking_head, at=4), images)
    assert broken.codes == [1]
    resumed = planted.run(broken.folder, trial, load=images, resume=True)
    losses = [row["train_loss"] for row in resumed.rows("steps")]
    assert losses[-6:] == [row["train_loss"] for row in whole.rows("steps")][3:]
    assert torch.equal(planted.well(resumed).state()["model"]["fc.weight"], whole.state()["model"]["fc.weight"])
    assert resumed.rows("trials")[-1]["resumed_at_epoch"] == "1"


# In one process, without a trial


class Flat(nn.Module):
    """A network whose features are the image itself."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.fc = nn.Linear(wanted, 10)

    def forward(self, values: Tensor) -> Tensor:
        return self.fc((values * self.scale).flatten(1))


ALONE: Any = SimpleNamespace(
    rank=0,
    processes=1,
    device=CPU,
    gather=lambda numbers: [numbers],
    add_up=lambda sums: sums,
    share_weights=lambda module: None,
    accelerator=SimpleNamespace(autocast=contextlib.nullcontext),
)


def training_of(trial: Trial, model: nn.Module) -> Training:
    model = place(model, trial, CPU)
    part = trained_part(trial, model)
    return Training(part, model, optimizer_for(trial, model), part=part)


def filled(trial: Trial, data: DataSet, folder: Path, model: nn.Module | None = None) -> tuple[Any, Training]:
    """(pipeline with all features, what trains on them)"""
    pipeline = FeaturePipeline(trial, data, CPU)
    training = training_of(trial, Flat(3 * trial.image_size**2) if model is None else model)
    compute(trial, pipeline, training, ALONE, folder)
    return pipeline, training


@pytest.mark.parametrize("augment", ["none", "flip"])
@pytest.mark.parametrize(("data", "size"), [("cifar10", 4), ("cifar10", 8), ("digits", 4), ("synthetic", 4)])
@pytest.mark.parametrize("where", ["host", "file"])
def test_each_micro_batch_has_the_features_of_the_images_that_the_long_way_has(
    data: Any, size: int, augment: Any, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.features.compute.place_for", lambda *words: where)
    trial = frozen(data=data, image_size=size, augment=augment, micro_batch=4, eval_batch=3, features="once")
    found = images(trial, tmp_path, train=21)
    passes = [(0, 4), (4, 8), (8, 9), (13, 13), (13, 17)]
    pipeline, _ = filled(trial, found, tmp_path)
    assert len(pipeline.store) == 21 * (2 if (augment, data) == ("flip", "cifar10") else 1) + 7 + 5
    long_way = InputPipeline(dataclasses.replace(trial, features="each_epoch"), found, CPU)
    for epoch in range(3):
        for (ours, labels), (theirs, expected) in zip(
            pipeline.train(epoch, passes), long_way.train(epoch, passes), strict=True
        ):
            assert torch.equal(ours, theirs.flatten(1))
            assert torch.equal(labels, expected)
    for split in (None, found.validation, found.other):
        for (ours, labels), (theirs, expected) in zip(
            pipeline.evaluate([(0, 3)], split), long_way.evaluate([(0, 3)], split), strict=True
        ):
            assert torch.equal(ours, theirs.flatten(1))
            assert torch.equal(labels, expected)
    pipeline.confirm()
    assert list(tmp_path.iterdir()) == []


def test_each_image_goes_through_the_backbone_once_in_passes_as_large_as_micro_batches(tmp_path: Path) -> None:
    """Both outcomes of 21 training images are 42; the last pass of 4 is filled up with two."""
    trial = frozen(image_size=4, micro_batch=4, eval_batch=3, epochs=1, features="once")
    found = images(trial, tmp_path, train=21)
    model = Flat(48)
    shown: list[int] = []
    model.register_forward_pre_hook(lambda _, given: shown.append(len(given[0])))
    pipeline, training = filled(trial, found, tmp_path, model)
    assert shown == [*[4] * 11, 3, 3, 1, 3, 2]
    after_epoch(trial, training.part, pipeline, ALONE, epoch=0)
    assert shown[16:] == [3]  # of the other data set, once, after the last epoch
    pipeline.confirm()


def test_images_that_go_through_the_backbone_again_are_found(tmp_path: Path) -> None:
    trial = frozen(image_size=4, micro_batch=4, features="once")
    pipeline, training = filled(trial, images(trial, tmp_path), tmp_path)
    training.module(torch.zeros(2, 3, 4, 4))
    with pytest.raises(UsageError, match=r"^--features is once, but 2 images went through the backbone once more"):
        pipeline.confirm()


def test_images_that_were_left_out_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = frozen(image_size=4, micro_batch=4, features="once")
    monkeypatch.setattr("bench.features.compute.share", lambda start, stop, *_: (start, stop - 4))
    with pytest.raises(UsageError, match=r"^--features is once, but 56 images went through the backbone where there"):
        filled(trial, images(trial, tmp_path), tmp_path)


# Where features are kept


@pytest.mark.parametrize(
    ("device", "free_device", "free_host", "limit", "place"),
    [
        ("cuda", 400, 0, None, "device"),
        ("cuda", 399, 400, None, "host"),
        ("cuda", 400, 400, 399, "host"),
        ("cuda", 399, 399, None, "file"),
        ("cpu", 0, 400, None, "host"),
        ("cpu", 0, 400, 399, "file"),
        ("cpu", 400, 399, None, "file"),
    ],
)
def test_features_are_kept_where_they_are_a_quarter_of_what_is_free(
    device: str, free_device: int, free_host: int, limit: int | None, place: str
) -> None:
    trial = Trial(memory_limit_bytes=limit)
    assert store.place_for(trial, 100, torch.device(device), free_device, free_host) == place


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_file_of_features_has_no_name_and_keeps_them(dtype: torch.dtype, tmp_path: Path) -> None:
    kept = store.allocate((5, 3), dtype, "file", CPU, tmp_path)
    values = torch.arange(15).view(5, 3).to(dtype)
    kept[:] = values
    assert torch.equal(store.take(kept, torch.tensor([4, 0]), CPU), values[[4, 0]])
    assert list(tmp_path.iterdir()) == []


def test_a_file_for_which_there_is_no_room_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^cannot keep 4\d+ bytes of features in .*; make room there, choose another"):
        store.allocate((10**9, 10**9), torch.float32, "file", CPU, tmp_path)
    assert list(tmp_path.iterdir()) == []


# What is refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trainable": ("layer3", "head")}, "--trainable layer3 head changes features .*; give --trainable head,"),
        ({"batch_norm": "train"}, "--batch-norm train makes an image's features depend .*; give --batch-norm eval,"),
        ({"augment": "crop_flip"}, "--augment crop_flip makes more different images .*; give --augment none or flip,"),
        ({"augment": "rotation"}, "--augment rotation makes more"),
        ({"body_dropout": 0.1, "body_dropout_after": ("layer3",)}, "--body-dropout 0.1 makes features random; give"),
        ({"compile": "default"}, "--compile default makes one program of backbone and head; give --compile none,"),
        ({"pipeline": "loader"}, "--pipeline loader has its workers draw the flips; give --pipeline auto or resident,"),
    ],
)
def test_a_setting_with_which_features_differ_is_refused_with_the_one_that_allows_it(
    changes: dict[str, Any], said: str
) -> None:
    assert frozen(**changes).features == "each_epoch"
    with pytest.raises(UsageError, match=f"^--features is once, but {said}"):
        frozen(**changes, features="once")


class Noisy(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values + torch.randn(()) if self.training else values


class Drifting(nn.Module):
    """As a spectral norm, and an InstanceNorm with running statistics, do."""

    passes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        self.passes += float(self.training)
        return values


class GoesOn(Flat):
    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values) * 2


def network(*layers: nn.Module) -> nn.Module:
    """A frozen network of these layers, which keep four values of an image, before its head."""
    model = nn.Sequential()
    for number, layer in enumerate((nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3, 4), *layers)):
        model.add_module(str(number), layer)
    model.requires_grad_(False)
    model.add_module("fc", nn.Linear(4, 10))
    return model


def headless() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 10))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (network(nn.BatchNorm1d(4)), "3 comes before the head and normalises with the statistics of each batch"),
        (network(nn.Linear(4, 4).requires_grad_(True)), None),
        (network(nn.Dropout(0.5)), "something before the head drew random numbers"),
        (network(Noisy()), "something before the head drew random numbers"),
        (GoesOn(48), "GoesOn goes on after its head fc"),
        (headless(), "no module 'head'"),
        (network(Drifting()), "3.passes changes in each pass; give --features each_epoch"),
    ],
    ids=["statistics", "trains", "dropout", "random", "goes on", "headless", "drifts"],
)
def test_a_network_whose_features_are_not_fixed_is_refused(model: nn.Module, said: str | None, tmp_path: Path) -> None:
    trial = frozen(image_size=4, micro_batch=4, features="once")
    if said is None:
        model.get_submodule("3").requires_grad_(True)
        said = "3 comes before the head and trains"
    with pytest.raises(UsageError, match=re.escape(f"--features is once, but {said}")):
        filled(trial, images(trial, tmp_path), tmp_path, model)


def test_more_processes_than_images_are_refused(tmp_path: Path) -> None:
    trial = frozen(image_size=4, micro_batch=4, processes=2, features="once")
    with pytest.raises(UsageError, match="2 processes cannot share 1 training images"):
        filled(trial, images(trial, tmp_path, train=1), tmp_path)
