"""What freezing and counting do to networks that are none of ours."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models import ModelError, backbone, checkpointing, surgery
from models.blocks import PlainBasicBlock


class NormAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: its forward pass does more than BatchNorm's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def network(norm: nn.Module, head: str = "fc") -> nn.Sequential:
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, 4, 3))
    model.add_module("norm", norm)
    model.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    model.add_module(head, nn.Linear(4, 2))
    return model


IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


def test_a_batch_norm_with_an_activation_keeps_it() -> None:
    model = network(NormAct(4))
    expected = model(IMAGES)
    surgery.freeze(model, ("all",), "eval")
    surgery.leave_uncounted(model)
    assert type(model.get_submodule("norm")) is NormAct
    assert torch.equal(model(IMAGES), expected)


@pytest.mark.parametrize("norm", [NormAct(4), nn.SyncBatchNorm(4), nn.Sequential(nn.BatchNorm3d(4))])
def test_a_frozen_batch_norm_of_another_kind_is_refused_in_evaluation_mode(norm: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"^norm[.0]* is frozen and a \w+, which batch_norm eval cannot hold; give"):
        surgery.freeze(network(norm), ("fc",), "eval")
    surgery.freeze(network(norm), ("fc",), "train")


def test_a_batch_norm_without_parameters_is_frozen_with_its_part() -> None:
    for trainable, trains in (("fc",), False), (("norm", "fc"), True):
        model = network(nn.BatchNorm2d(4, affine=False))
        surgery.freeze(model, trainable, "eval")
        assert model.train().get_submodule("norm").training is trains


def test_a_batch_norm_without_running_statistics_stays_as_it_is() -> None:
    model = network(nn.BatchNorm2d(4, track_running_stats=False))
    surgery.leave_uncounted(model)
    surgery.count_batches(model.train(), 3)
    assert type(model.get_submodule("norm")) is nn.BatchNorm2d


def test_a_head_has_the_name_fc_or_head_and_nothing_else_is_taken_for_one() -> None:
    for name in ("fc", "head"):
        model = network(nn.BatchNorm2d(4), head=name)
        surgery.freeze(model, ("head",), "train")
        assert surgery.trainable_parameters(model) == 4 * 2 + 2
    with pytest.raises(ModelError, match="no module 'head'"):
        surgery.freeze(network(nn.BatchNorm2d(4), head="classifier"), ("head",), "train")


def test_blocks_that_are_in_no_stage_are_refused() -> None:
    blocks = [PlainBasicBlock(4, 4), PlainBasicBlock(4, 4)]
    in_a_list = nn.Module()
    in_a_list.layers = nn.ModuleList(blocks)
    for model in (nn.Sequential(*blocks), in_a_list):
        with pytest.raises(ModelError, match="are in no module that runs as a stage; give block"):
            checkpointing.units(model, "stage")
        assert len(checkpointing.units(model, "block")) == 2


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), __import__("random").random])
def test_what_draws_random_numbers_of_any_kind_is_seen(draw: object) -> None:
    before = backbone.random_states(torch.device("cpu"))
    assert before == backbone.random_states(torch.device("cpu"))
    draw()  # type: ignore[operator]
    assert before != backbone.random_states(torch.device("cpu"))
