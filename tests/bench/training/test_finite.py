"""What is not finite, or is no variance, ends a trial as diverged, and gives no accuracy and no checkpoint."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
from torch import Tensor, nn

from bench.errors import UsageError
from bench.training import checkpoint, evaluation
from bench.training.build import optimizer_for
from bench.training.loop import Evaluation, Training
from bench.trial import Trial
from models import ModelError, weights


@pytest.mark.parametrize(
    ("name", "tensor", "found"),
    [
        ("fc.weight", torch.tensor([1.0, math.nan]), "fc.weight holds nan"),
        ("fc.weight", torch.tensor([[math.inf], [0.0]]), "fc.weight holds inf"),
        ("fc.weight", torch.tensor([-math.inf, math.inf]), "fc.weight holds -inf"),
        ("fc.weight", torch.tensor([math.nan], dtype=torch.bfloat16), "fc.weight holds nan"),
        ("conv", torch.full((2, 3, 2, 2), math.nan).to(memory_format=torch.channels_last), "conv holds nan"),
        ("bn1.running_var", torch.tensor([1.0, -1.0]), "bn1.running_var holds -1, which no variance is"),
        ("bn1.running_mean", torch.tensor([1.0, -1.0]), None),
        ("fc.weight", torch.tensor([3e38, -3e38]), None),
        ("steps", torch.tensor([2**40]), None),
        ("empty", torch.zeros(0), None),
    ],
)
def test_the_first_value_that_is_not_finite_is_named(name: str, tensor: Tensor, found: str | None) -> None:
    assert weights.first_not_finite([("before", torch.ones(2)), (name, tensor)]) == found


@pytest.mark.parametrize(("key", "value"), [("1.running_var", -1.0), ("0.weight", math.nan)])
def test_such_weights_are_not_loaded(key: str, value: float) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ModelError, match=f"^the weights in spoilt.pt are no trained model's: {key} holds {value:g}"):
        weights.load_whole(model, {**before, key: torch.full_like(before[key], value)}, "spoilt.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def training(model: nn.Module) -> Training:
    return Training(model, model, optimizer_for(Trial(), model))


def test_an_evaluation_names_its_part_and_the_weight_behind_it() -> None:
    made = training(nn.Linear(2, 2))
    good, bad = (Evaluation(loss, ((1, 0), (0, 1)), 0.1) for loss in (0.5, math.nan))
    assert evaluation.not_finite(made, {"evaluation": good}) is None
    assert evaluation.not_finite(made, {"evaluation": good, "validation": bad}) == "the validation loss is nan"
    nn.init.constant_(made.module.bias, math.inf)  # type: ignore[arg-type]
    assert evaluation.not_finite(made, {"evaluation": bad}) == "the evaluation loss is nan, and bias holds inf"
    assert (good.accuracy(), bad.accuracy()) == (1.0, None)


def test_the_momentum_counts_too() -> None:
    model = nn.Linear(2, 2)
    made = training(model)
    made.optimizer.state[model.weight]["momentum_buffer"][0, 0] = math.nan
    assert evaluation.not_finite(made) == "momentum_buffer of weight holds nan"


def test_such_a_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    made = training(nn.Linear(2, 2))
    nn.init.constant_(made.module.bias, math.nan)  # type: ignore[arg-type]
    path = tmp_path / "spoilt.pt"
    checkpoint.save(path, Trial(), made, {"epoch": 1})
    with pytest.raises(UsageError, match=r"^cannot resume from .*spoilt.pt: bias holds nan; delete it"):
        checkpoint.restore(path, training(nn.Linear(2, 2)), Trial(epochs=2))


def hidden(trial: Trial, classes: int, at: int) -> nn.Module:
    """A network one bias of which is -inf from this training pass on; behind it, a ReLU makes a 0 of it."""
    model = planted.smooth(trial, classes)
    model[2] = nn.ReLU()  # type: ignore[operator]
    passes = iter(range(1_000_000))

    def spoil(module: nn.Module, _: Any) -> None:
        if module.training and next(passes) == at:
            with torch.no_grad():
                module[0].bias[0] = -math.inf  # type: ignore[index]

    model.register_forward_pre_hook(spoil)
    return model


@pytest.mark.parametrize("processes", [1, 2])
def test_the_last_step_of_a_trial_may_be_the_one_that_diverges(processes: int, tmp_path: Path) -> None:
    """Its loss, before the update, was finite, and every image of nan is one of class 0."""
    trial = planted.settings(micro_batch=20 // processes, processes=processes, lr=1e38)
    ran = planted.run(tmp_path, trial, planted.smooth, planted.noise)
    assert set(ran.codes) == {1}, ran.said()
    row, (epoch,), (step,) = ran.row(), ran.rows("epochs"), ran.rows("steps")
    assert row["status"] == "diverged"
    assert row["error"] == "after epoch 0, the evaluation loss is nan; try a smaller --lr"
    assert math.isfinite(float(step["train_loss"]))
    assert [row[f"{part}_accuracy"] for part in ("train", "eval")] == ["", ""]
    assert (epoch["eval_loss"], epoch["eval_accuracy"]) == ("nan", "")
    assert ran.rows("per_class") == []
    assert list(tmp_path.glob("checkpoints/*")) == []


def test_an_infinite_weight_that_no_loss_shows_is_found_and_the_checkpoint_before_it_stays(tmp_path: Path) -> None:
    trial = planted.settings(micro_batch=10, epochs=3, lr=0.01)
    ran = planted.run(tmp_path, trial, functools.partial(hidden, at=3), planted.noise)
    row, epochs = ran.row(), ran.rows("epochs")
    assert (ran.codes, row["status"]) == ([1], "diverged")
    assert row["error"] == "after epoch 1, 0.bias holds -inf; try a smaller --lr"
    assert [epoch["eval_accuracy"] != "" for epoch in epochs] == [True, False]
    (path,) = tmp_path.glob("checkpoints/*.pt")
    assert torch.load(path, weights_only=True)["progress"]["epoch"] == 1
    resumed = planted.run(tmp_path, dataclasses.replace(trial), planted.smooth, planted.noise, resume=True)
    assert planted.well(resumed).rows("trials")[-1]["resumed_at_epoch"] == "1"


def test_the_accuracy_of_a_step_without_a_finite_loss_is_empty(tmp_path: Path) -> None:
    build = functools.partial(planted.failing, at=1, how="nan", build=planted.smooth)
    ran = planted.run(tmp_path, planted.settings(micro_batch=10), build, planted.noise)
    assert [step["train_accuracy"] != "" for step in ran.rows("steps")] == [True, False]
