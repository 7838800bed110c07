"""The levers of time and memory change no result: activations that are recomputed, features that are computed once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.trial import Trial

from . import trials
from .device import ON_STANDIN
from .loops import prepared

pytestmark = pytest.mark.gpu
SMALL = Trial(model="resnet8", data="digits", micro_batch=16, accumulate=2, limit_train=96, limit_eval=16)
TOLERANCE = 0 if ON_STANDIN else 1e-3


def trained(trial: Trial) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of three windows, and the buffers after them."""
    loop = prepared(trial)
    losses = loop.losses(3)
    return losses, {name: buffer.cpu() for name, buffer in loop.training.module.named_buffers()}


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("unit", ["block", "stage"])
def test_recomputed_activations_change_nothing(figures: dict[str, Any], unit: str, precision: str) -> None:
    """Recomputed activations: losses and BatchNorm's statistics are those without, within 0.1%, and count once"""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    settings: dict[str, Any] = {"precision": precision, "checkpoint_activations": unit}
    losses, buffers = trained(dataclasses.replace(SMALL, **settings))
    without, kept = trained(dataclasses.replace(SMALL, **{**settings, "checkpoint_activations": "none"}))
    worst = max(abs(one / other - 1) for one, other in zip(losses, without, strict=True))
    apart = max(float((buffers[name].double() - kept[name].double()).abs().max()) for name in kept)
    scale = max(float(kept[name].abs().max()) for name in kept if "running" in name)
    figures |= {"worst loss": f"{worst:.2e}", "worst statistic": f"{apart:.2e} of {scale:.3g}"}
    assert len(losses) == 3
    assert worst <= TOLERANCE
    assert apart <= TOLERANCE * scale
    counts = {name: buffers[name] for name in kept if name.endswith("num_batches_tracked")}
    assert {int(count) for count in counts.values()} == {3 * SMALL.accumulate}


def test_features_once_train_the_same_head(figures: dict[str, Any], tmp_path: Path) -> None:
    """Features that are computed once: losses and accuracy are those of computing them in each epoch, within 0.1%"""
    model, size = ("resnet8", "16") if ON_STANDIN else ("resnet18", "64")
    words = ["resnet152_frozen", "--arm", "bn_eval,features_once", "--model", model, "--weights", "none"]
    small = [
        "--data",
        "digits",
        "--image-size",
        size,
        "--micro-batch",
        "16",
        "--limit-train",
        "64",
        "--limit-eval",
        "50",
    ]
    found = trials.sweep([*words, *small, "--epochs", "2", "--no-checkpoint"], tmp_path)
    assert found.code == 0, found.said
    once, each = (found.row(arm=arm, status="ok") for arm in ("features_once", "bn_eval"))
    ours, theirs = (
        [float(step["train_loss"]) for step in found.rows("steps") if step["launch_id"] == row["launch_id"]]
        for row in (once, each)
    )
    worst = max(abs(one / other - 1) for one, other in zip(ours, theirs, strict=True))
    figures |= {"steps": len(ours), "worst loss": f"{worst:.2e}", "kept in": once["feature_place"]}
    assert len(ours) == 8
    assert worst <= TOLERANCE
    assert abs(float(once["eval_accuracy"]) - float(each["eval_accuracy"])) <= (0 if ON_STANDIN else 1 / 50)
    assert float(once["feature_pass_s"]) > 0
