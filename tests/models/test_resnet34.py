"""ResNet-34 by hand: with option B it is torchvision's, and the other options cost what the paper says."""

import pytest
import torch
import torchvision

from models import ModelError
from models.blocks import PaddedShortcut
from models.resnet34 import resnet34
from models.stages import Shortcut
from models.surgery import total_parameters

PUBLISHED = 21_797_672  # torchvision's documentation of ResNet34_Weights, 1000 classes
# 1x1 convolutions 64-128, 128-256 and 256-512, with the two parameters of BatchNorm for each channel.
PROJECTIONS = 64 * 128 + 128 * 256 + 256 * 512 + 2 * (128 + 256 + 512)


def by_hand(classes: int) -> int:
    """Parameters but for the shortcuts': stem, 3x3 convolutions, BatchNorm, head."""
    count, before = 3 * 64 * 49 + 2 * 64, 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        count += 9 * before * width + (2 * blocks - 1) * 9 * width * width + 2 * blocks * 2 * width
        before = width
    return count + 512 * classes + classes


def test_option_b_is_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet34()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight, 1.0, 0.1)
            module.running_mean = torch.randn(module.num_features)
    ours = resnet34("B", 1000)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours.eval()(images), theirs.eval()(images))
    assert torch.equal(ours.train()(images), theirs.train()(images))
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_parameters_are_the_published_ones_and_those_counted_by_hand() -> None:
    counts = {option: total_parameters(resnet34(option, 1000)) for option in ("A", "B", "none")}
    assert counts["B"] == PUBLISHED == by_hand(1000) + PROJECTIONS
    assert counts["A"] == counts["none"] == by_hand(1000)


@pytest.mark.parametrize("pixels", [32, 64])
def test_option_a_adds_what_padding_gives_and_none_adds_nothing(pixels: int) -> None:
    """With convolutions of zero a block is its shortcut: option A passes the stem on, no shortcut nothing."""
    images = torch.randn(2, 3, pixels, pixels)
    outputs = {}
    for option in ("A", "none"):
        torch.manual_seed(0)
        model = resnet34(option).eval()
        for name, module in model.named_modules():
            if name.startswith("layer") and isinstance(module, torch.nn.Conv2d):
                torch.nn.init.zeros_(module.weight)
        *body, _ = model.children()
        stem = torch.nn.Sequential(*body[:4])(images)
        outputs[option] = torch.nn.Sequential(*body)(images)
    for _ in range(3):
        stem = PaddedShortcut(2, stem.shape[1])(stem)
    assert torch.allclose(outputs["A"], stem.mean((2, 3)), atol=1e-6)
    assert outputs["A"].abs().sum() > 0
    assert not outputs["none"].any()


@pytest.mark.parametrize(("shortcut", "classes"), [("C", 10), ("B", 0)])
def test_what_cannot_be_built(shortcut: Shortcut, classes: int) -> None:
    with pytest.raises(ModelError):
        resnet34(shortcut, classes)
