"""The CIFAR networks against hand counts, the paper's table 6 and a second, hand-written forward pass."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from models import ModelError, cifar
from models.surgery import total_parameters


def hand_count(depth: int, shortcut: str, classes: int = 10) -> int:
    """Parameters by arithmetic alone: weights of k*k*in*out, and 2 of BatchNorm for each channel."""
    total = 9 * 3 * 16 + 2 * 16
    width = 16
    for channels in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            total += 9 * width * channels + 9 * channels * channels + 2 * 2 * channels
            if width != channels and shortcut == "B":
                total += width * channels + 2 * channels
            width = channels
    return total + width * classes + classes


def randomise(model: nn.Module) -> nn.Module:
    """Statistics and scales away from their initial 0 and 1, so that each of them shows in the output."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.get_buffer("running_mean"), -0.5, 0.5)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    return model.eval()


def reference(state: dict[str, Tensor], x: Tensor, stages: int, blocks: int, shortcut: str) -> Tensor:
    """He et al. 2015, section 4.2, as functions of the state dict."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])

    def identity(x: Tensor, name: str, stride: int, channels: int) -> Tensor | float:
        if shortcut == "none":
            return 0.0
        if stride == 1:
            return x
        if shortcut == "B":
            return norm(F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=2), f"{name}.downsample.1")
        padded = torch.zeros(x.shape[0], channels, (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2)
        padded[:, : x.shape[1]] = x[:, :, 0::2, 0::2]
        return padded

    x = F.relu(norm(F.conv2d(x, state["conv1.weight"], padding=1), "bn1"))
    for stage in range(stages):
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            stride = 2 if stage and not block else 1
            out = F.relu(norm(F.conv2d(x, state[f"{name}.conv1.weight"], None, stride, 1), f"{name}.bn1"))
            out = norm(F.conv2d(out, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            x = F.relu(out + identity(x, name, stride, out.shape[1]))
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def test_resnet20_option_a_counted_by_hand() -> None:
    stem = 3 * 16 * 9 + 32
    stage1 = 3 * (2 * 16 * 16 * 9 + 64)
    stage2 = (16 * 32 * 9 + 32 * 32 * 9 + 128) + 2 * (2 * 32 * 32 * 9 + 128)
    stage3 = (32 * 64 * 9 + 64 * 64 * 9 + 256) + 2 * (2 * 64 * 64 * 9 + 256)
    assert stem + stage1 + stage2 + stage3 + 64 * 10 + 10 == 269_722
    assert total_parameters(cifar.resnet(20, "A")) == 269_722


# Table 6 of He et al. 2015, in millions; the paper's networks have option A.
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_parameters_are_the_papers(depth: int, millions: float) -> None:
    with torch.device("meta"):
        counts = {shortcut: total_parameters(cifar.resnet(depth, shortcut)) for shortcut in ("A", "B", "none")}
    digits = 1 if depth == 110 else 2
    assert round(counts["A"] / 1e6, digits) == millions
    assert counts == {shortcut: hand_count(depth, shortcut) for shortcut in counts}
    assert counts["A"] == counts["none"] < counts["B"]


def test_resnet18_counted_by_hand() -> None:
    # torchvision's ResNet-18 has 11,689,512: take off its stem and head, put on ours.
    expected = 11_689_512 - (7 * 7 * 3 * 64) + (3 * 3 * 3 * 64) - (512 * 1000 + 1000) + (512 * 10 + 10)
    with torch.device("meta"):
        assert total_parameters(cifar.resnet18()) == expected
        projections = 64 * 128 + 128 * 256 + 256 * 512 + 2 * (128 + 256 + 512)
        assert total_parameters(cifar.resnet18("A")) == expected - projections


@pytest.mark.parametrize("shortcut", ["A", "B", "none"])
@pytest.mark.parametrize("pixels", [32, 33])
def test_resnet_is_the_reference(shortcut: cifar.Shortcut, pixels: int) -> None:
    torch.manual_seed(0)
    model = randomise(cifar.resnet(14, shortcut, num_classes=7))
    x = torch.randn(3, 3, pixels, pixels)
    expected = reference(model.state_dict(), x, stages=3, blocks=2, shortcut=shortcut)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shortcut", ["A", "B", "none"])
def test_resnet18_is_the_reference(shortcut: cifar.Shortcut) -> None:
    torch.manual_seed(0)
    model = randomise(cifar.resnet18(shortcut))
    x = torch.randn(1, 3, 16, 16)
    expected = reference(model.state_dict(), x, stages=4, blocks=2, shortcut=shortcut)
    torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pixels", [32, 64])
@pytest.mark.parametrize("build", [lambda: cifar.resnet(20, num_classes=5), lambda: cifar.resnet18(num_classes=5)])
def test_shapes(build: Callable[[], nn.Module], pixels: int) -> None:
    with torch.device("meta"):
        model, x = build(), torch.empty(2, 3, pixels, pixels)
    sizes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_children():
        x = module(x)
        sizes[name] = tuple(x.shape)
    assert sizes["conv1"][2:] == sizes["layer1"][2:] == (pixels, pixels)
    assert sizes["layer3"][2:] == (pixels // 4, pixels // 4)
    assert x.shape == (2, 5)


def test_only_the_stem_reaches_the_end_without_convolutions_and_with_shortcuts() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 1, 3, 32, 32)
    for shortcut, depends in (("A", True), ("none", False)):
        model = cifar.resnet(8, shortcut).eval()  # type: ignore[arg-type]
        for block in (module for module in model.modules() if isinstance(module, BasicBlock)):
            nn.init.zeros_(block.conv2.weight)
        assert torch.equal(model(a), model(b)) is not depends


@pytest.mark.parametrize("shortcut", ["A", "B", "none"])
def test_every_parameter_gets_a_gradient(shortcut: cifar.Shortcut) -> None:
    model = cifar.resnet(8, shortcut)
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_initialisation_is_kaiming_fan_out() -> None:
    torch.manual_seed(0)
    model = cifar.resnet(20)
    weight = model.get_parameter("layer3.1.conv1.weight")
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    # fan_in would give 2 / 32 here.
    projection = model.get_parameter("layer3.0.downsample.0.weight")
    assert projection.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)


def test_children_have_torchvisions_names() -> None:
    named = ["conv1", "bn1", "relu", "layer1", "layer2", "layer3", "avgpool", "fc"]
    assert [name for name, _ in cifar.resnet(8).named_children() if name != "flatten"] == named
    with torch.device("meta"):
        assert "layer4.1.conv2.weight" in cifar.resnet18().state_dict()


@pytest.mark.parametrize(("depth", "nearest"), [(21, 20), (2, 8), (-4, 8), (0, 8), (18, 20), (109, 110)])
def test_unknown_depth(depth: int, nearest: int) -> None:
    with pytest.raises(ModelError, match=rf"depth {depth}: .* nearest is {nearest}$"):
        cifar.resnet(depth)


def test_unknown_shortcut_and_no_classes() -> None:
    with pytest.raises(ModelError, match="no shortcut 'C'; choose from: A, B, none"):
        cifar.resnet(8, "C")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="0 classes"):
        cifar.resnet18(num_classes=0)
