"""What operations take on CUDA besides their results, and the prediction against torch's own peaks there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from perf.footprint_gpu import compare
from standin_cuda.standin import Standin

from bench.memory.cuda_workspaces import batch_norm_bytes, index_bytes, workspace_bytes
from bench.memory.prediction import predict
from bench.trial import Trial

MIB = 2**20
BEFORE_HOPPER, HOPPER = 2 * 4 * MIB + 8 * MIB // 64, 32 * MIB


@pytest.mark.parametrize(
    ("capability", "variable", "expected"),
    [
        ((8, 7), "", BEFORE_HOPPER),
        ((7, 5), "", BEFORE_HOPPER),
        ((9, 0), "", HOPPER),
        ((12, 0), "", HOPPER),
        (None, "", HOPPER),
        ((9, 0), ":16:8", 128 * 1024),
        ((8, 0), ":4096:2:16:8", BEFORE_HOPPER),
        ((8, 0), ":4096:8", HOPPER),
        ((8, 0), "nonsense", BEFORE_HOPPER),
    ],
)
def test_cublas_workspace_depends_on_the_capability_and_on_its_variable(
    capability: Any, variable: str, expected: int
) -> None:
    assert workspace_bytes(capability, {"CUBLAS_WORKSPACE_CONFIG": variable}) == expected


def test_a_device_that_is_planned_for_has_its_own_workspace_for_each_of_two_threads() -> None:
    trial = Trial(model="resnet8", data="synthetic", micro_batch=8)
    orin, hopper = (predict(trial, capability=each).allocated_bytes for each in ((8, 7), (9, 0)))
    assert hopper - orin == 2 * (HOPPER - BEFORE_HOPPER)


def test_indices_of_one_layout_are_not_copied() -> None:
    images, row = torch.zeros(4, 4), torch.zeros(3, dtype=torch.long)
    assert index_bytes([images, [row, row]]) == ()
    assert index_bytes([images, [row[:, None], row]]) == [72, 72]


def test_batch_norm_takes_scratch_memory_for_bf16_in_channels_last_alone() -> None:
    images = torch.zeros(8, 64, 16, 16, dtype=torch.bfloat16)
    columns = images.contiguous(memory_format=torch.channels_last)
    assert batch_norm_bytes(images, sums=4) == batch_norm_bytes(columns.float(), sums=4) == ()
    assert batch_norm_bytes(columns, sums=4) == (4 * 64 * 8 * 4, 2 * 4)  # 2048 rows are 8 blocks of 16 x 16


def small(**changes: Any) -> Trial:
    return dataclasses.replace(Trial(data="cifar10", limit_train=300, limit_eval=100, micro_batch=32), **changes)


TRIALS = [
    small(model="resnet20", accumulate=2, precision="bf16"),
    small(
        model="resnet18_cifar", augment="rotation", body_dropout=0.1, body_dropout_after=("layer1",), precision="bf16"
    ),
    small(model="resnet50", image_size=96, trainable=("head",), augment="flip", precision="bf16"),
    small(model="resnet18", weights="none", processes=2),
    small(model="resnet20", accumulate=2, processes=2),
]


def test_the_prediction_is_torchs_own_peak_on_a_gpu(standin_cuda: Standin, tmp_path: Path) -> None:
    """Allocated and reserved, in one process and in two; of the rest see tests/perf/FOOTPRINT.md."""
    found = list(compare(TRIALS, standin_cuda, tmp_path))
    assert len(found) == len(TRIALS)
    for trial, (allocated, reserved), (own_allocated, own_reserved) in found:
        assert allocated == pytest.approx(own_allocated, rel=0.005), trial
        assert reserved == pytest.approx(own_reserved, rel=0.02), trial
