"""RegNet and timm's ResNets: heads, blocks without skips, what trains, and weights from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.regnet import BlockParams, RegNet, ResBottleneckBlock

from models import ModelError, imagenet, names
from models.surgery import freeze, replace_blocks, replace_head

FIRST, SECOND = "trunk_output.block2.block2-0", "trunk_output.block2.block2-1"


def regnet(se_ratio: float | None = 0.25) -> nn.Module:
    """Two stages of two blocks each, of which the first has a projection."""
    torch.manual_seed(0)
    return RegNet(BlockParams([2, 2], [16, 32], [8, 8], [1.0, 1.0], [2, 2], se_ratio), num_classes=10)


def build(kind: str) -> tuple[nn.Module, str, str]:
    """(a network, its block that changes the shape, one that does not)."""
    if kind.startswith("regnet"):
        return regnet(0.25 if kind == "regnet_y" else None), FIRST, SECOND
    timm = pytest.importorskip("timm", reason="timm, an optional extra, is not installed")
    torch.manual_seed(0)
    return timm.create_model(kind.removeprefix("timm/"), num_classes=10), "layer2.0", "layer2.1"


KINDS = ["regnet_x", "regnet_y", "timm/resnet18d", "timm/resnet26d", "timm/ecaresnet26t", "timm/resnetblur50"]


def through(block: nn.Module, images: Tensor) -> Tensor:
    """What is added to a block's identity."""
    if isinstance(block, ResBottleneckBlock):
        return block.f(images)
    outputs: list[Tensor] = []
    part: Any = block
    last = part.se if part.se is not None else getattr(part, "bn3", part.bn2)
    last.register_forward_hook(lambda *call: outputs.append(call[2].clone()))
    block(images)
    return outputs[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_without_skip_is_the_block_less_its_identity(kind: str) -> None:
    model, *blocks = build(kind)
    expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
    inputs: dict[str, Tensor] = {}
    for name in blocks:
        model.get_submodule(name).register_forward_hook(lambda *call, name=name: inputs.update({name: call[1][0]}))
    model.eval()(torch.randn(2, 3, 64, 64))
    for name in blocks:
        torch.manual_seed(3)
        replace_blocks(model, [name], skip=True)
        whole = model.get_submodule(name)
        torch.manual_seed(3)
        replace_blocks(model, [name], skip=False)
        plain = model.get_submodule(name)
        assert type(plain) is not type(whole)
        assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), whole.parameters(), strict=True))
        images = inputs[name].detach()
        added = through(whole, images.clone())
        torch.testing.assert_close(plain(images.clone()), torch.relu(added))
        projection = getattr(whole, "proj" if kind.startswith("regnet") else "downsample")
        identity = images if projection is None else projection(images.clone())
        torch.testing.assert_close(whole(images.clone()), torch.relu(added + identity))
    assert {key: tensor.shape for key, tensor in model.state_dict().items()} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_projection_that_is_not_computed_never_trains_and_all_else_does(kind: str) -> None:
    model, first, _ = build(kind)
    replace_blocks(model, [first], skip=False)
    freeze(model, ["all"], "train")
    model.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    projection = "proj" if kind.startswith("regnet") else "downsample"
    assert without == {name for name, _ in model.named_parameters() if name.startswith(f"{first}.{projection}.")}
    assert without


def test_everything_in_a_fresh_block_is_fresh() -> None:
    model, first, second = build("timm/ecaresnet26t")  # its blocks have a one-dimensional convolution too
    for name in (first, second):
        before = {key: value.clone() for key, value in model.get_submodule(name).state_dict().items()}
        replace_blocks(model, [name], skip=True)
        after = model.get_submodule(name).state_dict()
        assert [key for key in before if "conv" in key and torch.equal(before[key], after[key])] == []


@pytest.mark.parametrize("kind", ["regnet_y", "timm/resnet26d"])
def test_a_frozen_backbone_in_eval_mode_does_not_move(kind: str) -> None:
    model, *_ = build(kind)
    replace_head(model, 4, (8,), (0.5,))
    freeze(model, ["head"], "eval")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {"fc.0.weight", "fc.0.bias", "fc.3.weight", "fc.3.bias"}


def test_names_that_are_no_blocks_and_a_network_that_has_none() -> None:
    with pytest.raises(ModelError, match=r"no block 'layer3\.1'; the nearest are: trunk_output\."):
        replace_blocks(regnet(), ["layer3.1"], skip=True)
    with pytest.raises(ModelError, match=r"no block 'layer3\.1': this network has none that can be replaced; leave"):
        replace_blocks(nn.Sequential(nn.Linear(1, 1)), ["layer3.1"], skip=True)


def test_a_regnet_s_weights_come_from_a_file_with_its_own_classes(tmp_path: Path) -> None:
    source, path = imagenet.network("regnet_y_400mf"), tmp_path / "mine.pt"
    replace_head(source, 7)
    torch.save(source.state_dict(), path)
    model = imagenet.network("regnet_y_400mf", str(path))
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())
    with pytest.raises(ModelError, match="do not fit this model: "):
        imagenet.network("regnet_x_400mf", str(path))


@pytest.mark.parametrize("name", ["timm/resnet50d", "timm/resnext50_32x4d"])
def test_without_timm_its_models_are_refused_in_a_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from models import from_timm

    names.check(name)
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(ModelError, match=f"^{name} needs timm, which is not installed; pip install timm, or "):
        from_timm.network(name)
