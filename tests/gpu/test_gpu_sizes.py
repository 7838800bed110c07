"""The memory that trials are predicted to take, beside what torch's allocator then says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench import cuda, experiments
from bench.footprint import predict
from bench.train import evaluation_sums
from bench.trial import Trial

from .loops import prepared

pytestmark = pytest.mark.gpu
# cuDNN's workspaces, which only a real GPU has, are in no prediction.
WITHIN = {"allocated": 0.05, "reserved": 0.05}
MIB = 2**20


def of_arm(name: str, arm: str, **changes: Any) -> Trial:
    """An experiment's arm, without its weights and data."""
    return replace(experiments.load(name).trial(name, arm), weights="none", data="synthetic", **changes)


CASES = {
    "resnet20 128x1 fp32": of_arm("resnet20_accumulation", "128x1"),
    "resnet152 frozen bn_eval 32x1 bf16": of_arm("resnet152_frozen", "bn_eval", micro_batch=32, precision="bf16"),
    "resnet152 no skip 16x2 fp16": of_arm(
        "resnet152_noskip", "corrected", micro_batch=16, accumulate=2, precision="fp16"
    ),
}
# The CPU computes what the stand-in trains.
SMALLER: dict[str, dict[str, Any]] = {
    "resnet20 128x1 fp32": {"micro_batch": 32},
    "resnet152 frozen bn_eval 32x1 bf16": {"model": "resnet18", "image_size": 96, "micro_batch": 8},
    "resnet152 no skip 16x2 fp16": {
        "model": "resnet8",
        "replace_blocks": ("layer1.0",),
        "trainable": ("head",),
        "image_size": 32,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_memory_is_as_predicted(figures: dict[str, Any], case: str, standin: bool) -> None:
    """Memory is as predicted, allocated and reserved, within 5%"""
    trial = replace(CASES[case], **SMALLER[case]) if standin else CASES[case]
    loop = prepared(trial)
    windows = loop.windows()[:3]
    batches = loop.batches(windows)
    for window in windows:
        loop.run(window, batches)
    evaluation_sums(loop.training.module, loop.feed.evaluate([(0, trial.micro_batch)]), loop.feed.data.classes)
    measured = dict(zip(WITHIN, cuda.memory(loop.device), strict=True))
    found = predict(trial, "cuda")
    predicted = {"allocated": found.allocated_bytes, "reserved": found.reserved_bytes}
    errors = {name: predicted[name] / measured[name] - 1 for name in WITHIN}
    for name in WITHIN:
        figures[name] = f"{predicted[name] / MIB:.1f} of {measured[name] / MIB:.1f} MiB ({errors[name]:+.2%})"
    assert all(abs(errors[name]) <= WITHIN[name] for name in WITHIN)
