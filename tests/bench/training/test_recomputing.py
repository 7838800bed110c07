"""Whole trials that recompute blocks, against the same ones that keep what these compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import planted
import pytest
import torch


def test_a_group_that_recomputes_trains_the_very_same_network(tmp_path: Path) -> None:
    """Two processes that share gradients in each second pass, bf16, dropout in the body, a short last window."""
    more: dict[str, Any] = {**planted.split(2, 2, 2), "precision": "bf16", "warmup_windows": 3, "limit_train": 36}
    more |= {"body_dropout": 0.2, "body_dropout_after": ("layer1.0", "layer2")}
    plain, found = (
        planted.well(planted.run(tmp_path / unit, planted.small(**more, checkpoint_activations=unit)))
        for unit in ("none", "block")
    )
    assert plain.column("steps", "train_loss") == found.column("steps", "train_loss")
    ours, theirs = found.state()["model"], plain.state()["model"]
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert int(ours["bn1.num_batches_tracked"]) == len(plain.column("steps", "window")) * 2 - 1  # the last has one pass
    one, other = plain.row(), found.row()
    assert (one["checkpoint_activations"], other["checkpoint_activations"]) == ("none", "block")
    again = int(other["recomputed_flops_per_window"])
    assert one["recomputed_flops_per_window"] == "0"
    assert int(other["flops_per_window"]) == int(one["flops_per_window"]) + again > again > 0
    ratio = float(other["model_flops_per_s"]) / float(other["images_per_s"])
    assert ratio == pytest.approx(float(one["model_flops_per_s"]) / float(one["images_per_s"]))
