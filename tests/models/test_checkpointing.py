"""Checkpointed models against the same ones without it: gradients, buffers, draws, and what is recomputed."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.instruments.recomputation import recomputing
from models import ModelError, cifar, imagenet, resnet34, surgery
from models.checkpointing import Unit, checkpoint_activations, units

UNITS: tuple[Unit, ...] = ("block", "stage")


def seeded(model: nn.Module, trainable: Sequence[str] = ("all",), batch_norm: Any = "train") -> nn.Module:
    """The model with weights from one seed, as a trial has it."""
    torch.manual_seed(0)
    surgery.freeze(model, trainable, batch_norm)
    surgery.leave_uncounted(model)
    return model


def trained(model: nn.Module, unit: Unit | None, passes: int = 2, precision: torch.dtype | None = None) -> nn.Module:
    """A copy that has been through so many training passes, without a step."""
    model = copy.deepcopy(model)
    if unit is not None:
        checkpoint_activations(model, unit)
    torch.manual_seed(1)
    for _ in range(passes):
        images = torch.randn(4, 3, 32, 32)
        with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
            loss = model(images).float().square().sum()
        loss.backward()
    return model


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def is_same(one: nn.Module, other: nn.Module) -> bool:
    """Whether gradients and buffers are the same bits, and none is missing from one alone."""
    pairs = [*zip(gradients(one).values(), gradients(other).values(), strict=True)]
    pairs += zip(one.buffers(), other.buffers(), strict=True)
    return all((a is None) is (b is None) and (a is None or b is None or torch.equal(a, b)) for a, b in pairs)


def dropping(model: nn.Module) -> nn.Module:
    """With dropout in a block, after a stage, and in the head."""
    surgery.add_dropout(model, ("layer1.0", "layer2"), 0.5)
    surgery.replace_head(model, 10, (8,), (0.5,))
    return model


def cumulative(model: nn.Module) -> nn.Module:
    """With BatchNorm that has no momentum: its running statistics are means over all batches, which it counts."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    return model


def replaced(model: nn.Module) -> nn.Module:
    surgery.replace_blocks(model, ("layer1.1", "layer3.0"), skip=False)
    return model


MODELS = {
    "resnet8": seeded(cifar.resnet(8)),
    "plain": seeded(cifar.resnet(8, "none")),
    "option A": seeded(resnet34.resnet34("A", 10)),
    "resnet50": seeded(imagenet.network("resnet50")),
    "dropout": seeded(dropping(cifar.resnet(8))),
    "no momentum": seeded(cumulative(cifar.resnet(8))),
    "no skip": seeded(replaced(cifar.resnet(20))),
    "frozen to the middle": seeded(cifar.resnet(20), ("layer2.1", "layer3", "head"), "eval"),
    "frozen behind": seeded(cifar.resnet(20), ("layer1.1",)),
}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_buffers_and_draws_are_those_without_it(name: str, unit: Unit) -> None:
    plain, checkpointed = trained(MODELS[name], None), trained(MODELS[name], unit)
    assert is_same(plain, checkpointed)
    assert list(plain.state_dict()) == list(checkpointed.state_dict())
    assert any(grad is not None and grad.any() for grad in gradients(plain).values())


@pytest.mark.parametrize("unit", UNITS)
def test_so_they_are_under_autocast(unit: Unit) -> None:
    model = MODELS["resnet8"]
    assert is_same(*(trained(model, each, precision=torch.bfloat16) for each in (None, unit)))


def ran_twice(model: nn.Module, unit: Unit) -> tuple[set[str], int]:
    """(the convolutions that a training pass runs a second time, in the backward pass; saved tensors in between)."""
    model = copy.deepcopy(model)
    checkpoint_activations(model, unit)
    runs: Counter[str] = Counter()
    again = set()

    def note(name: str) -> Any:
        def ran(*_: Any) -> None:
            runs[name] += 1
            if recomputing():
                again.add(name)

        return ran

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note(name))
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(torch.randn(2, 3, 32, 32)).sum()
    # Of four dimensions, not weights: what is kept of activations.
    images = {each.data_ptr() for each in kept if each.ndim == 4 and each.shape[0] == 2}
    loss.backward()
    assert {name for name, count in runs.items() if count == 2} == again
    assert max(runs.values()) == 2
    return again, len(images)


def convolutions(*starts: str) -> set[str]:
    named = cifar.resnet(20).named_modules()
    return {name for name, module in named if isinstance(module, nn.Conv2d) and name.startswith(starts)}


def test_each_block_and_stage_runs_again_and_keeps_its_input_alone() -> None:
    model = seeded(cifar.resnet(20))
    for unit, count in zip(UNITS, (9, 3), strict=True):
        again, kept = ran_twice(model, unit)
        assert again == convolutions("layer")
        # Each unit's input; the stem's images and what its BatchNorm and ReLU keep; what the head averages.
        assert kept <= count + 4


def test_what_is_frozen_before_all_that_trains_is_not_recomputed() -> None:
    model = seeded(cifar.resnet(20), ("layer2.1", "head"))
    for unit in UNITS:
        assert ran_twice(model, unit)[0] == convolutions("layer2.1", "layer2.2", "layer3")


def test_an_evaluation_recomputes_nothing_and_is_what_it_was() -> None:
    plain, checkpointed = (trained(MODELS["dropout"], unit).eval() for unit in (None, "block"))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(plain(images), checkpointed(images))


def test_stages_are_what_holds_blocks() -> None:
    assert list(units(imagenet.network("resnet18"), "stage")) == ["layer1", "layer2", "layer3", "layer4"]
    assert list(units(cifar.resnet(8), "block")) == ["layer1.0", "layer2.0", "layer3.0"]


@pytest.mark.parametrize(
    ("model", "unit", "said"),
    [
        (nn.Sequential(nn.Linear(1, 1)), "block", "Sequential has no residual blocks to checkpoint; leave"),
        (seeded(cifar.resnet(8), ("head",)), "stage", "nothing trains up to the last stage, layer3, so that none"),
        (seeded(cifar.resnet(8), ("head",)), "block", r"nothing trains up to the last block, layer3\.0, so that none"),
        (cifar.resnet(8), "layer", "no unit 'layer' to checkpoint; choose from: block, stage"),
    ],
    ids=["no blocks", "frozen stages", "frozen blocks", "unknown"],
)
def test_what_cannot_be_checkpointed_is_told_and_left_alone(model: nn.Module, unit: Any, said: str) -> None:
    with pytest.raises(ModelError, match=f"^{said}"):
        checkpoint_activations(model, unit)
    assert not any("forward" in vars(module) for module in model.modules())


def test_compiled_it_keeps_less_and_computes_the_same() -> None:
    """With torch's partition of forward and backward pass, without its kernels."""

    def compiled(recomputes: bool) -> tuple[int, list[Tensor]]:
        torch.manual_seed(0)
        model = cifar.resnet(8)
        if recomputes:
            checkpoint_activations(model, "block")
        kept: list[int] = []

        def keep(each: Tensor) -> Tensor:
            kept.append(each.nbytes)
            return each

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
            images = torch.linspace(-1, 1, 4 * 3 * 32 * 32).view(4, 3, 32, 32)
            loss = torch.compile(model, backend="aot_eager_decomp_partition")(images).sum()
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert len(gradients) == len(list(model.parameters()))
        return sum(kept), [*model.buffers(), *gradients]

    (plain, expected), (less, values) = compiled(False), compiled(True)
    assert less < plain / 2
    assert all(map(torch.equal, values, expected))
