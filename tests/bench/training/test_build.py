"""Building: a model is made of its seed, and its optimizer holds what trains."""

import dataclasses
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
from torch import nn

from bench.errors import UsageError
from bench.training.build import keeps_casts, model_for, optimizer_for, place, updated_model
from bench.trial import Trial

MADE = planted.small(head=(16,), dropout=(0.2,), replace_blocks=("layer2.0",), trainable=("head", "layer2.0"))


def held(trial: Trial, model: nn.Module) -> list[torch.Tensor]:
    optimizer = optimizer_for(trial, updated_model(trial, model, model_for, 10))
    return [p for group in optimizer.param_groups for p in group["params"]]


def test_equal_trials_make_equal_models_and_other_seeds_others() -> None:
    one, two, other = (model_for(dataclasses.replace(MADE, seed=seed), 10).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])
    assert not torch.equal(one["fc.0.weight"], other["fc.0.weight"])


def test_the_optimizer_holds_the_parameters_that_train_and_no_others() -> None:
    model = model_for(MADE, 10)
    expected = {id(p) for name, p in model.named_parameters() if name.startswith(("fc.", "layer2.0."))}
    assert {id(p) for p in held(MADE, model)} == expected


def test_another_model_s_optimizer_holds_nothing_of_this_one() -> None:
    trial = dataclasses.replace(MADE, optimizer_holds="another_model", checkpoint_activations="block")
    model = model_for(trial, 10)
    other = held(trial, model)
    assert not {id(p) for p in other} & {id(p) for p in model.parameters()}
    assert [tuple(p.shape) for p in other] == [(16, 64), (16,), (10, 16), (10,)]


@pytest.mark.parametrize(
    ("settings", "keeps"),
    [
        ({}, False),
        ({"precision": "bf16"}, True),
        ({"precision": "bf16", "compile": "default"}, False),
        ({"precision": "bf16", "checkpoint_activations": "block"}, False),
    ],
    ids=str,
)
def test_casts_are_kept_where_nothing_else_makes_or_drops_them(settings: dict[str, Any], keeps: bool) -> None:
    assert keeps_casts(Trial(**settings)) is keeps


def test_the_optimizer_has_the_trial_s_settings() -> None:
    trial = planted.small(lr=0.3, momentum=0.7, weight_decay=0.01)
    (group,) = optimizer_for(trial, model_for(trial, 10)).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.3, 0.7, 0.01, False)


@pytest.mark.parametrize(("momentum", "zeros"), [(0.9, True), (0.0, False)])
def test_momentum_is_zero_from_the_start_where_there_is_any(momentum: float, zeros: bool) -> None:
    """In the layout of the parameters, which the gradients have."""
    trial = planted.small(momentum=momentum)
    model = place(model_for(trial, 10), trial, torch.device("cpu"))
    optimizer = optimizer_for(trial, model)
    for parameter in model.parameters():
        state = optimizer.state[parameter]
        assert set(state) == ({"momentum_buffer"} if zeros else set())
        if zeros:
            assert not state["momentum_buffer"].any()
            assert state["momentum_buffer"].stride() == parameter.stride()


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("model", ["resnet8", "resnet20", "resnet18_cifar", "resnet18"])
def test_the_model_answers_for_every_class(model: str, classes: int) -> None:
    network = model_for(Trial(model=model), classes).eval()
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, classes)


def test_weights_come_from_the_file_and_the_head_is_fresh(tmp_path: Path) -> None:
    source = model_for(planted.small(seed=5), 7)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    loaded = model_for(planted.small(weights=str(tmp_path / "w.pt")), 3).state_dict()
    for name, value in source.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(loaded[name], value), name
    assert loaded["fc.weight"].shape == (3, 64)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"weights": "/no/such/file.pt"}, "/no/such/file.pt"),
        ({"trainable": ("layer9",)}, "no module 'layer9'"),
        ({"replace_blocks": ("layer1.7",)}, "no block 'layer1.7'"),
        ({"head": (8, 4), "dropout": (0.1, 0.2, 0.3)}, "3 dropout rates for 2 hidden layers"),
    ],
)
def test_a_model_that_cannot_be_made_is_one_sentence(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        model_for(planted.small(**setting), 10)
    assert "\n" not in str(caught.value)
