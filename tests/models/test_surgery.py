"""Surgery: what is put in, what it computes, what trains, and what does not move."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck

from models import ModelError, cifar
from models.surgery import (
    BatchNormMode,
    FrozenBatchNorm2d,
    add_dropout,
    count_batches,
    freeze,
    leave_uncounted,
    replace_blocks,
    replace_head,
    total_parameters,
    trainable_parameters,
)


def bottlenecks(**options: int) -> nn.Module:
    """torchvision's ResNet with two bottlenecks in each of the first two stages."""
    model = ResNet(Bottleneck, [2, 2, 1, 1], num_classes=10, **options)
    model.layer3 = model.layer4 = nn.Identity()
    model.fc = nn.Linear(512, 10)
    return model


BUILDS = {
    "A": lambda: cifar.resnet(14, "A"),
    "B": lambda: cifar.resnet(14, "B"),
    "none": lambda: cifar.resnet(14, "none"),
    "bottleneck": bottlenecks,
    "wide": lambda: bottlenecks(width_per_group=128),
    "grouped": lambda: bottlenecks(groups=32, width_per_group=4),
}


def build(kind: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return BUILDS[kind]()


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in model.state_dict().items()}


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def moved(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}


def train_once(model: nn.Module) -> None:
    model.train()
    model(torch.randn(4, 3, 16, 16)).sum().backward()


@pytest.mark.parametrize("kind", BUILDS)
@pytest.mark.parametrize("name", ["layer1.0", "layer1.1", "layer2.0", "layer2.1"])
def test_a_fresh_block_keeps_shapes_and_counts(kind: str, name: str) -> None:
    model = build(kind)
    x = torch.randn(2, 3, 16, 16)
    expected, shape, count = shapes(model), model(x).shape, total_parameters(model)
    for skip in [False] if kind == "none" and name == "layer2.0" else [False, True]:
        old = model.get_submodule(name)
        replace_blocks(model, [name], skip=skip)
        assert model.get_submodule(name) is not old
        assert shapes(model) == expected
        assert list(model.state_dict()) == list(expected)
        assert total_parameters(model) == count
        assert model(x).shape == shape


@pytest.mark.parametrize("kind", ["A", "B", "bottleneck", "grouped"])
@pytest.mark.parametrize("name", ["layer1.0", "layer1.1", "layer2.0", "layer2.1"])
def test_skip_adds_the_identity_and_no_skip_does_not(kind: str, name: str) -> None:
    model = build(kind)
    for skip in (False, True):
        replace_blocks(model, [name], skip=skip)
        block: Any = model.get_submodule(name).eval()
        last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        x = torch.randn(2, block.conv1.in_channels, 8, 8)
        identity = x if block.downsample is None else block.downsample(x)
        expected = torch.relu(identity) if skip else torch.zeros_like(identity)
        assert identity.abs().max() > 0.1
        assert torch.equal(block(x), expected)


@pytest.mark.parametrize("kind", ["A", "B", "bottleneck"])
def test_no_skip_is_the_block_less_its_identity(kind: str) -> None:
    with_skip, without = build(kind), build(kind)
    for name in ("layer1.1", "layer2.0"):
        for model, skip in ((with_skip, True), (without, False)):
            torch.manual_seed(5)
            replace_blocks(model, [name], skip=skip)
        a: Any = with_skip.get_submodule(name).eval()
        b: Any = without.get_submodule(name).eval()
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
        last = "bn3" if kind == "bottleneck" else "bn2"
        outputs: list[Tensor] = []
        a.get_submodule(last).register_forward_hook(lambda *call, kept=outputs: kept.append(call[2].clone()))
        x = torch.randn(2, a.conv1.in_channels, 8, 8)
        a(x)
        torch.testing.assert_close(b(x), torch.relu(outputs[0]))


def test_a_fresh_block_is_torchvisions_own_with_the_default_initialisation() -> None:
    """As notebook 000 has it: `layer1[1] = Bottleneck(256, 64)`."""
    model = build("bottleneck")
    train_once(model)
    torch.manual_seed(3)
    replace_blocks(model, ["layer1.1"], skip=True)
    torch.manual_seed(3)
    expected = Bottleneck(256, 64).state_dict()
    block = model.get_submodule("layer1.1")
    assert type(block) is Bottleneck
    assert list(block.state_dict()) == list(expected)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in block.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in block.parameters())


def test_everything_in_a_fresh_block_is_fresh_and_nothing_else() -> None:
    model = build("B")
    train_once(model)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    replace_blocks(model, ["layer2.0"], skip=True)
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    statistics = {key for key in before if "running" in key or "num_batches" in key}
    weights = {"layer2.0.conv1.weight", "layer2.0.conv2.weight", "layer2.0.downsample.0.weight"}
    assert changed == weights | {key for key in statistics if key.startswith("layer2.0.")}
    assert (model.get_buffer("layer2.0.downsample.1.running_mean") == 0).all()
    assert model.get_submodule("layer2.0").stride == 2


def test_a_fresh_block_has_the_mode_device_and_type_of_the_old() -> None:
    model = build("B").eval().to("meta", torch.float64)
    replace_blocks(model, ["layer2.0"], skip=False)
    block = model.get_submodule("layer2.0")
    assert {(p.device.type, p.dtype) for p in block.parameters()} == {("meta", torch.float64)}
    assert not any(module.training for module in block.modules())


def test_unused_downsample_gets_no_gradient() -> None:
    model = build("B")
    replace_blocks(model, ["layer2.0"], skip=False)
    unused = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert unused == {f"layer2.0.downsample.{key}" for key in ("0.weight", "1.weight", "1.bias")}
    before = buffers(model)
    train_once(model)
    assert {name for name, p in model.named_parameters() if p.grad is None} == unused
    assert not any("layer2.0.downsample" in name for name in moved(model, before))
    replace_blocks(model, ["layer2.0"], skip=True)
    assert all(p.requires_grad for p in model.parameters())


def test_ddp_accepts_a_block_without_skip(tmp_path: Path) -> None:
    model = build("B")
    replace_blocks(model, ["layer1.1", "layer2.0"], skip=False)
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(model)
        for _ in range(2):  # A parameter without a gradient stops the second step.
            parallel(torch.randn(2, 3, 16, 16)).sum().backward()
    finally:
        dist.destroy_process_group()


def test_names_that_are_no_blocks() -> None:
    model = build("B")
    before = dict(model.named_modules())
    for name in ("layer3.10", "layer2", "layer2.0.conv1", "fc", "", "foo"):
        with pytest.raises(ModelError, match=f"no block {name!r}; the nearest are: layer"):
            replace_blocks(model, ["layer1.0", name], skip=True)
    with pytest.raises(ModelError, match=r"are: layer3\.1,"):
        replace_blocks(model, ["layer3.11"], skip=True)
    assert dict(model.named_modules()) == before


def test_a_plain_network_cannot_skip_a_change_of_shape() -> None:
    model = build("none")
    with pytest.raises(ModelError, match=r"layer2\.0 of this plain network changes the shape"):
        replace_blocks(model, ["layer2.0"], skip=True)
    replace_blocks(model, ["layer2.1"], skip=True)
    assert type(model.get_submodule("layer2.1")) is BasicBlock


def layers(model: nn.Module) -> list[tuple]:
    """The head in short: ("Linear", in, out), ("Dropout", p), ("ReLU",)."""
    told: list[tuple] = []
    for module in model.get_submodule("fc").children():
        if isinstance(module, nn.Linear):
            told.append(("Linear", module.in_features, module.out_features))
        else:
            told.append((type(module).__name__, *([module.p] if isinstance(module, nn.Dropout) else [])))
    return told


def head_on_512(*args: Any, **options: Any) -> nn.Module:
    with torch.device("meta"):
        model = cifar.resnet18()
        replace_head(model, *args, **options)
    return model


def test_config1_of_document_002() -> None:
    model = head_on_512(10, hidden=(128,), dropout=(0.3,))
    assert layers(model) == [("Linear", 512, 128), ("ReLU",), ("Dropout", 0.3), ("Linear", 128, 10)]


def test_config2_of_document_002() -> None:
    model = head_on_512(10, hidden=(256, 128, 128, 64, 32), dropout=(0.2, 0.2, 0.2, 0.2, 0))
    assert layers(model) == [
        ("Linear", 512, 256), ("ReLU",), ("Dropout", 0.2),
        ("Linear", 256, 128), ("ReLU",), ("Dropout", 0.2),
        ("Linear", 128, 128), ("ReLU",), ("Dropout", 0.2),
        ("Linear", 128, 64), ("ReLU",), ("Dropout", 0.2),
        ("Linear", 64, 32), ("ReLU",),
        ("Linear", 32, 10),
    ]  # fmt: skip


def test_a_linear_head_and_dropout_everywhere_and_nowhere() -> None:
    model = head_on_512(4)
    assert isinstance(model.get_submodule("fc"), nn.Linear)
    assert model.get_submodule("fc").weight.shape == (4, 512)
    two = [("Linear", 512, 8), ("ReLU",), ("Linear", 8, 7), ("ReLU",), ("Linear", 7, 4)]
    assert layers(head_on_512(4, (8, 7))) == two
    assert layers(head_on_512(4, (8, 7), (0.0,))) == two
    dropped = layers(head_on_512(4, (8, 7), (0.5,)))
    assert dropped == [*two[:2], ("Dropout", 0.5), *two[2:4], ("Dropout", 0.5), two[4]]


def test_a_head_can_be_replaced_again_and_computes() -> None:
    model = build("B").eval().double()
    replace_head(model, 3, hidden=(9,), dropout=(0.5,))
    replace_head(model, 5, hidden=(8,), dropout=(0.5,))
    assert layers(model)[0] == ("Linear", 64, 8)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert model(x).shape == (2, 5)
    assert torch.equal(model(x), model(x))  # The new Dropout is in evaluation mode, as the model is.


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"classes": 0}, "0 classes"),
        ({"classes": 3, "hidden": (4, 0)}, "empty layer"),
        ({"classes": 3, "dropout": (0.5,)}, "1 dropout rates for 0 hidden layers"),
        ({"classes": 3, "hidden": (4, 4, 4), "dropout": (0.5, 0.5)}, "2 dropout rates for 3"),
        ({"classes": 3, "hidden": (4,), "dropout": (1.0,)}, r"\(1.0,\) is not in"),
        ({"classes": 3, "hidden": (4,), "dropout": (-0.1,)}, "is not in"),
        ({"classes": 3, "hidden": (4,), "dropout": (float("nan"),)}, "is not in"),
    ],
)
def test_impossible_heads(options: dict, text: str) -> None:
    model = cifar.resnet(8)
    before = model.get_submodule("fc")
    with pytest.raises(ModelError, match=text):
        replace_head(model, **options)
    assert model.get_submodule("fc") is before


def test_a_model_without_fc_has_no_head() -> None:
    with pytest.raises(ModelError, match="no Linear in fc"):
        replace_head(nn.Sequential(nn.Conv2d(3, 3, 1)), 3)


def trains(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_what_trains() -> None:
    model = build("B")
    names = {name for name, _ in model.named_parameters()}
    freeze(model, ("head",), "train")
    assert trains(model) == {"fc.weight", "fc.bias"}
    assert trainable_parameters(model) == 650
    freeze(model, ("layer2.1", "fc", "conv1"), "train")
    assert trains(model) == {name for name in names if name.startswith(("layer2.1.", "fc.", "conv1."))}
    freeze(model, ("layer3",), "train")
    assert trains(model) == {name for name in names if name.startswith("layer3.")}
    freeze(model, ("all",), "eval")
    assert trains(model) == names
    assert trainable_parameters(model) == total_parameters(model)


def test_layer3_1_is_not_layer3_10() -> None:
    with torch.device("meta"):
        model = cifar.resnet(68)
    freeze(model, ("layer3.1",), "train")
    assert {name.rpartition(".")[0].split(".")[1] for name in trains(model)} == {"1"}


@pytest.mark.parametrize("trainable", [("all",), ("layer2",), ("layer2.0", "head")])
def test_an_unused_downsample_never_trains(trainable: tuple[str, ...]) -> None:
    model = build("B")
    replace_blocks(model, ["layer2.0"], skip=False)
    freeze(model, trainable, "train")
    assert not any(name.startswith("layer2.0.downsample") for name in trains(model))
    assert "layer2.0.conv1.weight" in trains(model)
    train_once(model)
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trains(model)


def test_frozen_batch_norm_eval_moves_nothing_and_train_moves_everything() -> None:
    model = build("B")
    modes: tuple[BatchNormMode, ...] = ("eval", "train")
    for mode in modes:
        freeze(model, ("head",), mode)
        before = buffers(model)
        train_once(model)
        model.eval()
        train_once(model)
        assert moved(model, before) == (set(before) if mode == "train" else set())


def test_the_trained_part_moves_and_the_frozen_part_does_not() -> None:
    model = build("B")
    freeze(model, ("layer3.1", "head"), "eval")
    before = buffers(model)
    train_once(model)
    assert moved(model, before) == {name for name in before if name.startswith("layer3.1.")}
    assert model.get_submodule("layer3.1.bn1").training
    freeze(model, ("all",), "eval")  # Nothing is frozen any more.
    before = buffers(model)
    train_once(model)
    assert moved(model, before) == set(before)


def test_a_frozen_layer_normalises_by_its_running_statistics() -> None:
    model = build("B")
    train_once(model)
    freeze(model, ("head",), "eval")
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(model.train()(x), model.eval()(x))
    freeze(model, ("head",), "train")
    assert not torch.allclose(model.train()(x), model.eval()(x))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_stays_frozen(duplicate: Callable[[nn.Module], nn.Module]) -> None:
    model = build("A")
    keys = list(model.state_dict())
    freeze(model, ("head",), "eval")
    replica = duplicate(model)
    before = buffers(replica)
    train_once(replica)
    assert moved(replica, before) == set()
    assert isinstance(replica.get_submodule("bn1"), FrozenBatchNorm2d)
    assert list(replica.state_dict()) == keys
    build("A").load_state_dict(replica.state_dict())


def test_freezing_holds_at_once() -> None:
    model = build("B").train()
    freeze(model, ("layer3", "head"), "eval")
    assert model.training
    norms = {name: m.training for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms == {name: name.startswith("layer3") for name in norms}


def test_freezing_keeps_the_mode_of_the_model() -> None:
    model = build("B").eval()
    freeze(model, ("layer3", "head"), "eval")
    assert not any(module.training for module in model.modules())


def test_a_block_put_into_a_frozen_network_is_not_frozen() -> None:
    model = build("B")
    freeze(model, ("head",), "eval")
    replace_blocks(model, ["layer2.1"], skip=True)
    block = model.get_submodule("layer2.1")
    assert type(block.get_submodule("bn1")) is nn.BatchNorm2d
    assert all(module.training for module in block.modules())
    assert all(p.requires_grad for p in block.parameters())


@pytest.mark.parametrize("name", ["layer9", "layer3.9", "heads", "", "fc.weight", "al"])
def test_freeze_unknown_name(name: str) -> None:
    model = build("B")
    with pytest.raises(ModelError, match=f"no module {name!r}; the nearest are: "):
        freeze(model, ("head", name), "train")
    assert trainable_parameters(model) == total_parameters(model)


@pytest.mark.parametrize("trainable", [(), ("relu",), ("layer2.0.downsample",)])
def test_freeze_nothing_trains(trainable: tuple[str, ...]) -> None:
    model = build("B")
    replace_blocks(model, ["layer2.0"], skip=False)
    with pytest.raises(ModelError, match="nothing trains"):
        freeze(model, trainable, "train")


def test_freeze_unknown_mode() -> None:
    with pytest.raises(ModelError, match="no batch_norm 'frozen'; choose from: train, eval"):
        freeze(build("B"), ("all",), "frozen")  # type: ignore[arg-type]


# Dropout in the body


@pytest.mark.parametrize("name", ["layer2", "layer2.0", "conv1"])
def test_dropout_after_a_module_drops_its_output_while_training_alone(name: str) -> None:
    model = build("B")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    add_dropout(model, [name], 0.25)
    assert list(model.state_dict()) == list(before)
    seen: list[Tensor] = []
    following = model.get_submodule({"layer2": "layer3", "layer2.0": "layer2.1", "conv1": "bn1"}[name])
    following.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    images = torch.randn(64, 3, 16, 16)
    whole = build("B")
    given: list[Tensor] = []
    whole.get_submodule(name).register_forward_hook(lambda _, args, output: given.append(output.detach().clone()))
    with torch.no_grad():
        model.train()(images)
        whole.train()(images)
        kept = seen[0] != 0
        alive = given[0] != 0
        assert kept[alive].float().mean().item() == pytest.approx(0.75, abs=0.01)
        assert torch.allclose(seen[0][kept], given[0][kept] / 0.75, atol=1e-5)
        model.eval()(images)
        whole.eval()(images)
    assert torch.equal(seen[1], given[1])


def test_no_rate_makes_no_dropout() -> None:
    model = build("B")
    add_dropout(model, ["layer1"], 0.0)
    assert not [module for module in model.modules() if isinstance(module, nn.Dropout)]


@pytest.mark.parametrize(
    ("after", "rate", "said"),
    [
        (["layer1"], 1.5, r"dropout 1.5 is not in \[0, 1\)"),
        (["layer9"], 0.1, "no module 'layer9'; the nearest are: "),
        (["fc"], 0.1, "is not in the body"),
        (["head"], 0.1, "is not in the body"),
        (["all"], 0.1, "is not in the body"),
    ],
)
def test_dropout_that_cannot_be_put_in(after: list[str], rate: float, said: str) -> None:
    model = build("B")
    with pytest.raises(ModelError, match=said):
        add_dropout(model, ["layer1", *after], rate)
    assert not [module for module in model.modules() if isinstance(module, nn.Dropout)]


def test_batches_that_are_counted_afterwards_leave_the_state_that_counting_each_one_does() -> None:
    """To the last bit, in what trains and not in what is frozen in evaluation mode."""
    torch.manual_seed(0)
    counting = build("B")
    freeze(counting, ["layer3", "head"], "eval")
    uncounted = copy.deepcopy(counting)
    leave_uncounted(uncounted)
    for images in torch.randn(3, 4, 3, 16, 16):
        assert torch.equal(counting(images), uncounted(images))
    assert (uncounted.get_buffer("layer3.0.bn1.num_batches_tracked"), list(uncounted.state_dict())) == (
        0,
        list(counting.state_dict()),
    )
    count_batches(uncounted, 3)
    counted = {name: buffer for name, buffer in counting.state_dict().items() if "num_batches" in name}
    assert set(map(int, counted.values())) == {0, 3}
    for name, buffer in counting.state_dict().items():
        assert torch.equal(uncounted.state_dict()[name], buffer), name
    uncounted.eval()
    count_batches(uncounted, 3)
    assert uncounted.get_buffer("layer3.0.bn1.num_batches_tracked") == 3
