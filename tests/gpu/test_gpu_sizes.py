"""The memory that trials are predicted to take, beside what torch's allocator then says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench import experiments
from bench.machine import cuda
from bench.memory.prediction import predict
from bench.training.loop import evaluation_sums
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
    "resnet20 64x2 bf16, blocks recomputed": of_arm(
        "resnet20_accumulation", "64x2", precision="bf16", checkpoint_activations="block"
    ),
    "resnet152 frozen bn_eval 32x1 bf16": of_arm("resnet152_frozen", "bn_eval", micro_batch=32, precision="bf16"),
    "resnet152 no skip 16x2 fp16": of_arm(
        "resnet152_noskip", "corrected", micro_batch=16, accumulate=2, precision="fp16"
    ),
}


@pytest.mark.usefixtures("without_arithmetic")
@pytest.mark.parametrize("case", CASES)
def test_memory_is_as_predicted(figures: dict[str, Any], case: str) -> None:
    """Memory is as predicted, allocated and reserved, within 5%"""
    trial = CASES[case]
    loop = prepared(trial)
    windows = loop.windows()[:3]
    batches = loop.batches(windows)
    for window in windows:
        loop.run(window, batches)
    evaluation_sums(loop.training.module, loop.feed.evaluate([(0, trial.micro_batch)]), loop.feed.data.classes)
    measured = dict(zip(WITHIN, cuda.memory(loop.device), strict=True))
    found = predict(trial, "cuda")
    assert found.reserved_bytes is not None
    predicted = {"allocated": found.allocated_bytes, "reserved": found.reserved_bytes}
    errors = {name: predicted[name] / measured[name] - 1 for name in WITHIN}
    for name in WITHIN:
        figures[name] = f"{predicted[name] / MIB:.1f} of {measured[name] / MIB:.1f} MiB ({errors[name]:+.2%})"
    assert all(abs(errors[name]) <= WITHIN[name] for name in WITHIN)
