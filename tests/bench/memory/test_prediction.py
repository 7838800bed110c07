"""Predicted memory, against arithmetic and against what torch's allocator really handed out."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from perf.footprint import PUBLISHED, Case, error_of, measured_bytes, predicted_bytes
from torch import nn

from bench import experiments
from bench.errors import UsageError
from bench.memory import prediction, trace
from bench.memory.cuda_workspaces import workspace_bytes
from bench.memory.footprint import at_batch
from bench.memory.prediction import predict
from bench.training.build import model_for
from bench.trial import Trial
from models.surgery import total_parameters

SMALL = Trial(model="resnet8", data="synthetic", micro_batch=8)
MIB = 2**20
FROZEN: dict[str, Any] = {"trainable": ("head",), "batch_norm": "eval", "augment": "none"}


def of(**changes: Any) -> Trial:
    return dataclasses.replace(SMALL, **changes)


def built(make: Callable[[], nn.Module]) -> Callable[[Trial, int], nn.Module]:
    """A builder that gives this model for any trial."""
    return lambda trial, classes: make()


class Wide(nn.Module):
    """One layer of a known size: 3 S S values in, 1000 classes out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, 1000, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(images.flatten(1))


def test_weights_gradient_and_momentum_of_one_layer_are_what_arithmetic_says() -> None:
    weights = 4 * 3 * 32 * 32 * 1000
    found = predict(of(memory_format="contiguous"), "cpu", built(Wide))
    assert found.parts["weights"] == found.parts["optimizer"] == weights
    # Nothing but logits and a copy of the images lives beside them when the gradient comes.
    assert 3 * weights < found.allocated_bytes < 3 * weights + 2 * MIB


def test_without_momentum_there_is_no_optimizer_state() -> None:
    assert "optimizer" not in predict(of(momentum=0.0), "cpu").parts


def test_checkpointing_keeps_inputs_of_blocks_and_what_is_recomputed_at_once() -> None:
    """Of ResNet-20, whose first stage of three blocks holds most: two maps of the stem, of each block what two
    convolutions and two BatchNorms make, and two gradients where the last block's backward pass begins."""
    changes: dict[str, Any] = {"model": "resnet20", "micro_batch": 64}
    one_map = 4 * 64 * 16 * 32 * 32
    block, stage = (predict(of(**changes, checkpoint_activations=unit), "cpu").parts for unit in ("block", "stage"))
    # The first block's input is one of the stem's maps.
    assert block["activations"] == pytest.approx((2 + 2 + 4 + 2) * one_map, rel=0.02)
    assert stage["activations"] == pytest.approx((2 + 3 * 4 + 2) * one_map, rel=0.02)


def test_gradients_are_accumulated_ones_where_another_micro_batch_follows() -> None:
    once, twice, often = (predict(of(accumulate=k), "cpu", built(Wide)) for k in (1, 2, 7))
    assert "accumulated gradients" not in once.parts
    assert twice.parts["accumulated gradients"] == once.parts["weights"]
    assert often.order == twice.order  # further micro-batches repeat the second


def test_ddp_keeps_gradients_in_buckets_of_their_size_and_accumulated_ones_beside_them() -> None:
    found = predict(of(processes=2, accumulate=2), "cpu", built(Wide))
    assert found.parts["DDP buckets"] == found.parts["weights"]
    assert found.parts["accumulated gradients"] == found.parts["weights"]


class Narrow(nn.Module):
    """Three layers of 1000 values each, and the last one's 10."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(width, 1000 // width, bias=False) for width in (10, 100, 10)]
        self.layers = nn.ModuleList([*layers, nn.Linear(100, 10, bias=False)])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = images.flatten(1)[:, :10]
        for layer in self.layers:
            values = layer(values)
        return values


@pytest.mark.parametrize(
    ("changes", "first", "sizes"),
    [
        ({}, [16_000], [16_000]),
        ({"bucket_mib": 8000 / 2**20}, [16_000], [8000, 8000]),
        ({"bucket_mib": 12_000 / 2**20}, [16_000], [12_000, 4000]),
        ({"bucket_mib": 1 / 2**20}, [16_000], [4000] * 4),
        ({"bucket_mib": 8000 / 2**20, "gradient_compression": "bf16"}, [16_000, 8000], [8000, 8000, 4000, 4000]),
        ({"processes": 1, "bucket_mib": 8000 / 2**20, "gradient_compression": "bf16"}, [], []),
    ],
)
def test_buckets_have_the_size_that_was_asked_for_and_bf16_copies_half_of_it(
    changes: dict[str, Any], first: list[int], sizes: list[int]
) -> None:
    found = predict(of(**{"processes": 2, **changes}), "cpu", built(Narrow), last_window=False)
    buckets = [size for size, part in zip(found.sizes, found.counts_as, strict=True) if part == "DDP buckets"]
    # One at the start, and those of that size after the first window; copied in each.
    assert sorted(buckets) == sorted(first + sizes)


def test_frozen_weights_have_no_gradients_and_no_state() -> None:
    frozen = predict(of(trainable=("head",)), "cpu")
    head = 4 * (64 * 10 + 10)
    assert frozen.parts.get("optimizer", 0) == head
    assert frozen.allocated_bytes < predict(SMALL, "cpu").allocated_bytes / 2


def test_another_model_s_optimizer_keeps_that_model_s_head() -> None:
    one, other = (predict(of(optimizer_holds=who), "cpu").parts["weights"] for who in ("this_model", "another_model"))
    assert other == one + 4 * (64 * 10 + 10)


@pytest.mark.parametrize(("precision", "each"), [("no", 4), ("bf16", 2)])
def test_features_that_are_computed_once_take_their_bytes_where_they_fit(precision: Any, each: int) -> None:
    """Of 50,000 images, their mirror images, and 10,000 to evaluate on: 64 numbers each."""
    frozen = of(**{**FROZEN, "augment": "flip", "data": "cifar10", "precision": precision, "features": "once"})
    stored = (2 * 50_000 + 10_000) * 64 * each
    for limit, there in ((None, 1), (4 * stored, 1), (4 * stored - 1, 0)):
        found = predict(dataclasses.replace(frozen, memory_limit_bytes=limit), last_window=False)
        assert list(zip(found.sizes, found.counts_as, strict=True)).count((stored, "input")) == there


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_halves_the_activations_and_copies_the_weights_it_casts(precision: Any) -> None:
    full, half = (predict(of(precision=each, micro_batch=64)) for each in ("no", precision))
    assert half.parts["activations"] == pytest.approx(full.parts["activations"] / 2, rel=0.05)
    assert 0 < half.parts["autocast copies"] <= half.parts["weights"] / 2
    assert half.parts["weights"] == full.parts["weights"]


def test_on_cuda_the_data_set_counts_where_it_is_resident_and_cublas_takes_its_workspace() -> None:
    resident, loader = (predict(of(data="cifar10", pipeline=which)) for which in ("resident", "loader"))
    padded, evaluation = 50_000 * 40 * 40 * 3, 10_000 * 32 * 32 * 3
    difference = resident.parts["input"] - loader.parts["input"]
    # An epoch's order, its labels in it, and of each image the rows and columns of its crop.
    epoch = 50_000 * (2 + 32 + 32) * 8
    assert difference == pytest.approx(padded + evaluation + 60_000 * 8 + epoch, rel=0.003)
    assert resident.parts["workspace"] == 2 * workspace_bytes(None)  # of the thread that goes forward, and back


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accumulate": 2},
        {"precision": "bf16"},
        {"processes": 2, "accumulate": 2},
        {"model": "resnet50", "image_size": 64},
        {"model": "resnet50", "image_size": 64, "trainable": ("head",), "batch_norm": "eval"},
        {"model": "resnet50", "image_size": 64, "features": "once", **FROZEN},
        {"data": "digits", "pipeline": "resident"},
        {"model": "resnet20", "checkpoint_activations": "block", "precision": "bf16"},
        {"model": "resnet20", "checkpoint_activations": "stage"},
    ],
)
@pytest.mark.parametrize("backend", ["cuda", "cpu"])
def test_two_small_micro_batches_tell_of_every_other_exactly(changes: dict[str, Any], backend: Any) -> None:
    known = {batch: predict(of(**changes, micro_batch=batch), backend, last_window=False) for batch in (2, 4)}
    for batch in (7, 64):
        direct = predict(of(**changes, micro_batch=batch), backend, last_window=False)
        told = at_batch(batch, known)
        lines = [number for number, part in enumerate(direct.counts_as) if part != "workspace"]
        assert [told.sizes[number] for number in lines] == [direct.sizes[number] for number in lines]
        assert told.reserved_bytes == direct.reserved_bytes


def test_the_largest_micro_batch_fits_and_its_neighbour_does_not_after_four_traces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traces = []

    def counted(*words: Any, **more: Any) -> Any:
        traces.append(words)
        return predict(*words, **more)

    monkeypatch.setattr(prediction, "predict", counted)
    limit = predict(of(micro_batch=100), "cpu").limited_bytes
    assert prediction.largest_micro_batch(SMALL, limit, "cpu")[0] == 100
    assert prediction.largest_micro_batch(SMALL, limit - 1, "cpu")[0] == 99
    assert len(traces) <= 8


def test_there_is_no_larger_micro_batch_than_the_images_of_a_process() -> None:
    assert prediction.largest_micro_batch(of(limit_train=50, processes=2), 2**40)[0] == 25


def test_a_limit_that_nothing_fits_names_the_weights() -> None:
    with pytest.raises(UsageError, match=r"too small for resnet8 at any micro-batch.* the weights alone \d+"):
        prediction.largest_micro_batch(SMALL, 1000)


class Peeks(nn.Module):
    """Looks at its values, which fake ones have not."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(images.mean((2, 3))) * float(images.sum())


def test_a_model_that_cannot_be_traced_is_told_with_its_operation() -> None:
    with pytest.raises(UsageError, match=r"resnet8 cannot be traced: aten\._local_scalar_dense"):
        predict(SMALL, "cpu", built(Peeks))


@pytest.mark.parametrize("model", ["wide_resnet101_2", "regnet_y_128gf"])
def test_the_weights_of_the_largest_of_each_family_are_their_parameters(model: str) -> None:
    """Their constructors compute, and their weights, of up to 2.4 GiB, are never in memory here."""
    found = predict(of(model=model, trainable=("head",), image_size=32, micro_batch=2), last_window=False)
    with torch.device("meta"), trace.ConstructorArithmetic():
        network = model_for(of(model=model), 10)
    assert found.parts["weights"] == pytest.approx(4 * total_parameters(network), rel=0.03)  # in blocks


def test_a_compiled_model_is_refused() -> None:
    with pytest.raises(UsageError, match="--compile"):
        predict(of(compile="default"))


CASES = [
    Case(of(model="resnet20", micro_batch=32)),
    Case(of(model="resnet20", micro_batch=32, precision="bf16", accumulate=3)),
    Case(of(model="resnet18", image_size=64, memory_format="contiguous")),
    Case(of(model="resnet20", data="digits", pipeline="resident", micro_batch=128)),
    Case(of(model="resnet50", image_size=64, trainable=("head",), batch_norm="eval")),
    Case(of(model="resnet20", micro_batch=32, checkpoint_activations="block", precision="bf16", accumulate=3)),
    Case(of(model="resnet50", image_size=64, checkpoint_activations="stage")),
    Case(of(model="resnet18", image_size=64, data="digits", limit_train=99, limit_eval=33, features="once", **FROZEN)),
    Case(of(model="resnext50_32x4d", micro_batch=4)),
    Case(of(model="regnet_y_400mf", micro_batch=4)),
    Case(of(image_size=96), "mobilenet_v3_large"),
    Case(of(image_size=96, precision="bf16"), "squeezenet1_0"),
    *(
        Case(dataclasses.replace(trial, weights="none", data="synthetic", image_size=96, micro_batch=8))
        for trial in [experiments.load("resnet152_noskip").trial("resnet152_noskip", "corrected")]
    ),
]


@pytest.mark.parametrize("case", CASES, ids=Case.name)
def test_the_prediction_is_what_really_executed_steps_took(case: Case) -> None:
    assert abs(error_of(predicted_bytes(case), measured_bytes(case))) <= 0.03


# Not with gradient compression: its copies go in a thread of gloo's, where the profiler does not see them go.
@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"bucket_mib": 1.0}], ids=str)
def test_so_it_is_for_a_rank_of_two(changes: dict[str, Any]) -> None:
    case = Case(of(model="resnet18", image_size=32, processes=2, **changes))
    assert abs(error_of(predicted_bytes(case), measured_bytes(case))) <= 0.03


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda p: p.where)
def test_published_peaks_of_gpus_are_met_within_one_and_a_half_percent(published: Any) -> None:
    predicted = predict(published.trial, "cuda", model_for, 1000).allocated_bytes
    assert abs(error_of(predicted, published.gib * 2**30)) <= 0.015


def test_what_is_set_aside_is_no_training_image() -> None:
    found = prediction.shapes(Trial(data="cifar10", validation=0.2))
    assert (len(found.train), len(found.evaluation)) == (40_000, 10_000)
    assert len(prediction.shapes(Trial(data="digits", validation=0.2)).train) == 1150


@pytest.mark.parametrize("name", ["rotation", "salt_pepper"])
def test_an_augmentation_can_be_traced(name: Any) -> None:
    """And takes its draws, six numbers for each training image, besides."""
    plain, drawn = (prediction.predict(Trial(model="resnet8", data="digits", augment=a)) for a in ("none", name))
    assert drawn.allocated_bytes - plain.allocated_bytes == pytest.approx(6 * 4 * 1438, rel=0.02)
