"""Operations that are not run again: what they would have returned, and never what depends on more than sizes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from bench.instruments.storage_tracker import StorageTracker
from bench.memory import prediction
from bench.memory.known_operations import KnownOperations
from bench.trial import Trial

aten = torch.ops.aten
SMALL = Trial(model="resnet8", data="synthetic", micro_batch=4, accumulate=2)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KnownOperations, "known", {})


class RunsEach:
    """In place of KnownOperations: torch runs each operation."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self.mode = mode

    def __call__(self, operation: Any, args: Any, kwargs: Any) -> Any:
        return operation(*args, **kwargs)


@pytest.mark.parametrize(
    ("changes", "backend"),
    [
        ({}, "cuda"),
        ({"precision": "bf16", "checkpoint_activations": "block"}, "cuda"),
        ({"precision": "fp16", "processes": 2}, "cuda"),
        ({"model": "resnet18", "image_size": 64, "body_dropout": 0.3, "body_dropout_after": ("layer2",)}, "cuda"),
        ({"model": "regnet_y_400mf", "image_size": 64, "memory_format": "contiguous"}, "cuda"),
        ({"trainable": ("head",), "batch_norm": "eval", "augment": "none", "features": "once"}, "cuda"),
        ({"data": "digits", "augment": "rotation", "pipeline": "resident"}, "cuda"),
        ({"checkpoint_activations": "stage"}, "cpu"),
        ({"precision": "bf16", "data": "digits", "pipeline": "resident"}, "cpu"),
    ],
)
def test_a_footprint_is_the_one_of_a_trace_that_runs_each_operation(
    changes: dict[str, Any], backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = dataclasses.replace(SMALL, **changes)
    quick = [prediction.predict(trial, backend) for _ in range(2)]  # the second one knows all operations
    monkeypatch.setattr(prediction, "KnownOperations", RunsEach)
    assert quick == [prediction.predict(trial, backend)] * 2


def test_an_operation_is_run_once_for_arguments_of_the_same_sizes() -> None:
    ran: Counter[str] = Counter()

    class Counts(StorageTracker):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            ran[str(func)] += 1
            return func(*args, **(kwargs or {}))

    with FakeTensorMode() as mode, Counts():
        a, b, c = torch.empty(2, 3), torch.empty(2, 3), torch.empty(4, 3)
        known = KnownOperations(mode)
        sums = [known(aten.add.Tensor, (x, y), {}) for x, y in ((a, b), (b, a), (a, a), (c, c))]
        scaled = [known(aten.mul.Tensor, (a, factor), {}).dtype for factor in (2, 2.0, 3)]
        whole = known(aten.mul.Tensor, (torch.empty(2, 3, dtype=torch.int64), 2), {})
    assert ran["aten.add.Tensor"] == 2
    assert ran["aten.mul.Tensor"] == 4
    assert [tuple(each.shape) for each in sums] == [(2, 3)] * 3 + [(4, 3)]
    assert len({each.untyped_storage()._cdata for each in sums}) == 4
    assert scaled == [torch.float32] * 3
    assert whole.dtype == torch.int64


def test_what_is_changed_in_place_is_returned_and_a_view_shares_its_storage() -> None:
    with FakeTensorMode() as mode:
        known = KnownOperations(mode)
        for _ in range(3):
            a = torch.empty(4, 6)
            assert known(aten.relu_.default, (a,), {}) is a
            for view in (
                known(aten.detach.default, (a,), {}),
                known(aten.t.default, (a,), {}),
                known(aten._unsafe_view.default, (a, [6, 4]), {}),
            ):
                assert isinstance(view, FakeTensor)
                assert view is not a
                assert view.untyped_storage()._cdata == a.untyped_storage()._cdata


def test_the_optimizer_s_step_makes_no_real_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch has no fake version of it, and would run it on zeros of the model's size."""

    def refused(*words: Any) -> None:
        raise AssertionError(f"{words[1]} is run on real tensors")

    monkeypatch.setattr(fake_tensor, "run_fallback_kernel", refused)
    prediction.predict(SMALL)
    monkeypatch.setattr(prediction, "KnownOperations", RunsEach)
    fake_tensor.FakeTensorMode.cache_clear()
    with pytest.raises(AssertionError, match="_fused_sgd_"):
        prediction.predict(SMALL)


def test_what_depends_on_values_is_refused_each_time() -> None:
    with FakeTensorMode() as mode:
        known = KnownOperations(mode)
        for _ in range(2):
            with pytest.raises(prediction.UNTRACEABLE):
                known(aten._local_scalar_dense.default, (torch.empty(()),), {})
            with pytest.raises(prediction.UNTRACEABLE):
                known(aten.nonzero.default, (torch.empty(3),), {})
