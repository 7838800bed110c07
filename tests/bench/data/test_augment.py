"""Augmentations: planted answers, most of them torchvision's, and that no image's depends on another."""

import math
import struct
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torchvision.transforms.v2 import functional as vision

from bench.data import augment

DETERMINISTIC = ("resize", "center_crop")
LAST = 1 - 2**-24  # the largest draw that there is
MIDDLE = [0.5] * augment.DRAWS
FORMATS = (torch.contiguous_format, torch.channels_last)


def noise(count: int, height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    """Images of whole numbers in 1..254, all unlike their neighbours."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 255, (count, 3, height, width), generator=generator).float()


def draws_for(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, augment.DRAWS, generator=torch.Generator().manual_seed(seed))


def drawn(*values: float) -> Tensor:
    """The draws of one image, filled up with 0.5."""
    return torch.tensor([[*values, *MIDDLE[len(values) :]]])


def close(left: Tensor, right: Tensor, within: float = 0.01) -> bool:
    """Of 255 levels."""
    return left.shape == right.shape and bool((left - right).abs().max() <= within)


class Calls(TorchFunctionMode):
    """While entered, notes which of torch's functions are called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[Any] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func)
        return func(*args, **(kwargs or {}))


# Every augmentation


def test_the_names_are_those_of_the_report() -> None:
    names = "rotation color_jitter resized_crop resize center_crop cutout blur salt_pepper"
    assert " ".join(augment.NAMES) == names


@pytest.mark.parametrize("name", augment.NAMES)
@pytest.mark.parametrize("size", [(32, 32), (17, 24)])
def test_an_image_becomes_the_same_alone_as_in_any_batch(name: str, size: tuple[int, int]) -> None:
    images, draws = noise(9, *size), draws_for(9)
    together = augment.apply(name, images, draws)
    apart = torch.cat([augment.apply(name, images[i : i + 1], draws[i : i + 1]) for i in range(9)])
    halves = torch.cat([augment.apply(name, images[i::2], draws[i::2]) for i in range(2)])
    order = torch.tensor([0, 2, 4, 6, 8, 1, 3, 5, 7])
    torch.testing.assert_close(apart, together, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(halves, together[order], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", augment.NAMES)
@pytest.mark.parametrize("format", FORMATS)
def test_shape_format_and_range_are_kept_and_the_input_is_left_alone(name: str, format: torch.memory_format) -> None:
    """Black and white images, and the smallest and the largest draws, reach furthest."""
    images = (noise(8, 20, 32) > 127).float().mul(255).contiguous(memory_format=format)
    images[0], images[1] = 0, 255
    draws = torch.cat([draws_for(4), torch.zeros(2, augment.DRAWS), torch.full((2, augment.DRAWS), LAST)])
    before = images.clone(), draws.clone()
    made = augment.apply(name, images, draws)
    assert (made.shape, made.dtype) == (images.shape, torch.float32)
    assert made.is_contiguous(memory_format=format)
    assert 0 <= float(made.min()) <= float(made.max()) <= 255
    assert made.data_ptr() != images.data_ptr()
    assert torch.equal(images, before[0])
    assert torch.equal(draws, before[1])


@pytest.mark.parametrize("name", augment.NAMES)
def test_the_memory_format_changes_nothing_else(name: str) -> None:
    images, draws = noise(6), draws_for(6)
    plain, last = (augment.apply(name, images.contiguous(memory_format=format), draws) for format in FORMATS)
    assert close(plain, last, 1e-3)
    assert not close(plain, images, 1)


@pytest.mark.parametrize("name", augment.NAMES)
def test_other_draws_give_another_image_where_there_is_chance(name: str) -> None:
    image = noise(1).expand(2, -1, -1, -1)
    first, second = augment.apply(name, image, torch.cat([drawn(*[0.2] * 6), drawn(*[0.7] * 6)]))
    assert torch.equal(first, second) == (name in DETERMINISTIC)


@pytest.mark.parametrize("name", augment.NAMES)
def test_torchs_own_random_numbers_are_not_touched(name: str) -> None:
    state = torch.get_rng_state()
    augment.apply(name, noise(2), draws_for(2))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", augment.NAMES)
def test_no_number_is_read_back_from_the_device_nor_copied_there(name: str) -> None:
    """The device `meta` has no numbers to read back, and takes no tensor of another's."""
    images, draws = noise(4).to("meta"), draws_for(4).to("meta")
    with Calls() as calls:
        assert augment.apply(name, images, draws).shape == images.shape
    assert calls.seen
    assert not calls.seen & {torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.item}


@pytest.mark.parametrize("name", augment.NAMES)
def test_autocast_does_not_round_it(name: str) -> None:
    images, draws = noise(4), draws_for(4)
    with torch.autocast("cpu", torch.bfloat16):
        made = augment.apply(name, images, draws)
    assert torch.equal(made, augment.apply(name, images, draws))


# Rotation


@pytest.mark.parametrize(("draw", "degrees"), [(0.0, -15), (0.5, 0), (0.75, 7.5), (LAST, 15)])
@pytest.mark.parametrize("size", [(32, 32), (20, 32)])
def test_rotation_is_torchvisions(draw: float, degrees: float, size: tuple[int, int]) -> None:
    images = noise(1, *size)
    expected = vision.rotate(images, degrees, interpolation=vision.InterpolationMode.BILINEAR)
    assert close(augment.apply("rotation", images, drawn(draw)), expected, 0.05)


def test_rotation_by_the_middle_draw_is_no_change_and_an_extreme_one_leaves_black_corners() -> None:
    images = noise(2)
    still, turned = augment.apply("rotation", images, torch.cat([drawn(0.5), drawn(0.0)]))
    assert close(still, images[0], 0.05)
    assert not turned[:, [0, 0, -1, -1], [0, -1, 0, -1]].any()


# Color jitter


def test_color_jitter_by_the_middle_draws_is_no_change() -> None:
    assert close(augment.apply("color_jitter", noise(3), torch.tensor([MIDDLE] * 3)), noise(3))


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.6), (0.25, 0.8), (LAST, 1.4)])
@pytest.mark.parametrize("place", range(3))
def test_each_factor_is_torchvisions(place: int, draw: float, factor: float) -> None:
    adjust = (vision.adjust_brightness, vision.adjust_contrast, vision.adjust_saturation)[place]
    draws = torch.tensor([MIDDLE] * 5)
    draws[:, place] = draw
    expected = adjust(noise(5) / 255, factor) * 255
    assert close(augment.apply("color_jitter", noise(5), draws), expected)
    assert not close(expected, noise(5), 10)


def test_the_factors_are_applied_in_torchvisions_usual_order() -> None:
    images = noise(2)
    expected = vision.adjust_brightness(images / 255, 1.4)
    expected = vision.adjust_saturation(vision.adjust_contrast(expected, 0.6), 1.4) * 255
    assert close(augment.apply("color_jitter", images, torch.tensor([[LAST, 0.0, LAST, 0.5, 0, 0]] * 2)), expected)


@pytest.mark.parametrize("turns", [-0.1, 0.03, 0.1])
def test_the_hue_turns_in_yiq(turns: float) -> None:
    """YIQ as the NTSC's equations define it, for torchvision's grey scaled to whole."""
    red, green, blue = (weight / sum(augment.GREY) for weight in augment.GREY)
    luma = torch.tensor([red, green, blue]).double()
    v, u = (0.877283 * (torch.eye(3).double()[i] - luma) for i in (0, 2))
    u *= 0.492111 / 0.877283
    angle = math.radians(33)
    to_yiq = torch.stack([luma, v * math.cos(angle) - u * math.sin(angle), v * math.sin(angle) + u * math.cos(angle)])
    # From Q's axis to I's, as from U's to V's, which 33 degrees part from them.
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    turn = torch.tensor([[1, 0, 0], [0, cos, sin], [0, -sin, cos]]).double()
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    images = noise(4)
    expected = torch.einsum("ij,njhw->nihw", matrix, images.double()).float()
    assert close(augment.hue(images, torch.full((4,), turns)), expected)


def test_the_hue_keeps_grey_and_luma() -> None:
    weights = torch.tensor(augment.GREY).view(3, 1, 1)
    images, turns = noise(4), torch.tensor([-0.1, -0.02, 0.05, 0.1])
    turned = augment.hue(images, turns)
    assert close((turned * weights).sum(1), (images * weights).sum(1))
    assert not close(turned, images, 10)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    assert close(augment.hue(grey, turns), grey)


def test_the_hue_turns_the_way_that_torchvisions_does() -> None:
    """From red towards yellow, from green towards cyan, from blue towards magenta, and back by a negative one."""
    colours = (torch.eye(3) * 100 + 50).view(3, 3, 1, 1)
    for turns in (0.1, -0.1):
        ours = augment.hue(colours, torch.full((3,), turns)) - colours
        theirs = vision.adjust_hue(colours / 255, turns) * 255 - colours
        assert ((ours * theirs).sum((1, 2, 3)) > 0).all()


@pytest.mark.parametrize(("draw", "turns"), [(0.0, -0.1), (0.75, 0.05), (LAST, 0.1)])
def test_color_jitter_turns_the_hue_by_its_own_draw(draw: float, turns: float) -> None:
    images = noise(2) / 4 + 96
    made = augment.apply("color_jitter", images, drawn(0.5, 0.5, 0.5, draw).expand(2, -1))
    assert close(made, augment.hue(images, torch.full((2,), turns)))


# Crops and sizes

# Draws of area, ratio, top and left; then top, left, height and width of the window that they stand for.
WINDOWS = [
    ((32, 32), (0.5, 0.5, 0.25, 0.75), (2, 6, 24, 24)),
    ((32, 32), (0.0, 0.0, 0.0, 0.999), (0, 24, 10, 8)),
    ((32, 32), (0.0, LAST, LAST, 0.0), (24, 0, 8, 10)),
    ((32, 32), (LAST, 0.0, 0.9, 0.5), (0, 2, 32, 28)),  # 36.9 high, cut
    ((20, 32), (0.25, 0.5, 0.5, 0.5), (3, 9, 14, 14)),
    ((20, 32), (0.75, 0.5, 0.5, 0.5), (0, 5, 20, 22)),  # 22.2 high, cut
]


@pytest.mark.parametrize(("size", "draws", "window"), WINDOWS)
def test_a_resized_crop_is_torchvisions_of_that_window(
    size: tuple[int, int], draws: Sequence[float], window: tuple[int, int, int, int]
) -> None:
    """Enlarging, torchvision's antialiasing changes nothing."""
    images = noise(1, *size)
    expected = vision.resized_crop(images, *window, size=list(size), antialias=True)
    assert close(augment.apply("resized_crop", images, drawn(*draws)), expected, 0.05)


def test_images_of_a_batch_are_cropped_each_by_its_own_draws() -> None:
    cases = [case for case in WINDOWS if case[0] == (32, 32)]
    images = noise(len(cases))
    made = augment.apply("resized_crop", images, torch.cat([drawn(*draws) for _, draws, _ in cases]))
    for image, cropped, (size, _, window) in zip(images, made, cases, strict=True):
        assert close(cropped, vision.resized_crop(image, *window, size=list(size)), 0.05)


def test_resize_goes_to_three_quarters_and_back() -> None:
    images = noise(3, 32, 20)
    expected = vision.resize(vision.resize(images, [24, 15], antialias=True), [32, 20], antialias=True)
    assert close(augment.apply("resize", images, draws_for(3)), expected)


@pytest.mark.parametrize("size", [(32, 32), (32, 20), (12, 13)])
def test_center_crop_is_torchvisions_of_the_middle_three_quarters(size: tuple[int, int]) -> None:
    images = noise(3, *size)
    cropped = vision.center_crop(images, [round(side * 0.75) for side in size])
    expected = vision.resize(cropped, list(size), antialias=True)
    assert close(augment.apply("center_crop", images, draws_for(3)), expected)


# Cutout


def test_cutout_blanks_exactly_its_square_and_what_of_it_lies_in_the_image() -> None:
    images = noise(4)
    holes = [((0.5, 0.5), (8, 24, 8, 24)), ((0.0, 0.0), (0, 8, 0, 8)), ((LAST, 0.25), (23, 32, 0, 16))]
    holes.append(((0.75, LAST), (16, 32, 23, 32)))
    made = augment.apply("cutout", images, torch.cat([drawn(*draws) for draws, _ in holes]))
    for image, cut, (_, (top, bottom, left, right)) in zip(images, made, holes, strict=True):
        expected = image.clone()
        expected[:, top:bottom, left:right] = image.mean((1, 2))[:, None, None]
        assert close(cut, expected, 1e-3)
        outside = torch.ones(32, 32, dtype=torch.bool)
        outside[top:bottom, left:right] = False
        assert torch.equal(cut[:, outside], image[:, outside])


def test_cutouts_square_is_half_the_shorter_side() -> None:
    made = augment.apply("cutout", noise(1, 20, 32), drawn(0.5, 0.5))
    changed = (made != noise(1, 20, 32)).any(1)[0]
    assert changed.nonzero().amin(0).tolist() == [5, 11]
    assert changed.nonzero().amax(0).tolist() == [14, 20]


# Blur


def test_each_image_of_a_batch_is_blurred_by_its_own_sigma() -> None:
    images, draws = noise(5, 32, 20), draws_for(5)
    draws[:, 0] = torch.tensor([0.0, 0.25, 0.5, 0.75, LAST])
    made = augment.apply("blur", images, draws)
    for image, blurred, sigma in zip(images, made, (0.1, 0.575, 1.05, 1.525, 2.0), strict=True):
        assert close(blurred, vision.gaussian_blur(image, [5, 5], [sigma, sigma]))
    assert torch.equal(made[0], images[0])


# Salt and pepper


def hashed(value: int) -> int:
    """MurmurHash3's last step."""
    value = (value ^ value >> 16) * 0x85EBCA6B % 2**32
    value = (value ^ value >> 13) * 0xC2B2AE35 % 2**32
    return value ^ value >> 16


@pytest.mark.parametrize("draw", [0.0, 0.3, LAST])
def test_the_noise_is_the_hash_of_the_draws_bits_and_the_pixels_number(draw: float) -> None:
    image = noise(1, 12, 50)
    key = hashed(struct.unpack("<I", struct.pack("<f", draw))[0])
    numbers = torch.tensor([hashed(key ^ pixel) / 2**32 for pixel in range(600)]).double().view(12, 50)
    expected = image.masked_fill(numbers < 0.025, 255).masked_fill(numbers >= 0.975, 0)
    assert 5 < (expected != image).any(1).sum() < 70
    assert torch.equal(augment.apply("salt_pepper", image, drawn(draw)), expected)


def test_one_pixel_in_twenty_is_lost_half_to_each_colour_and_no_other_changes() -> None:
    images = noise(64, 64, 64)
    made = augment.apply("salt_pepper", images, draws_for(64))
    white, black = (made == 255).all(1), (made == 0).all(1)
    pixels = white.numel()
    for lost, share in ((white, 0.025), (black, 0.025), (white | black, 0.05)):
        assert abs(int(lost.sum()) - share * pixels) < 4 * math.sqrt(pixels * share * (1 - share))
    kept = ~(white | black)[:, None].expand_as(images)
    assert torch.equal(made[kept], images[kept])


def test_the_noise_of_a_pixel_tells_nothing_of_its_neighbours_or_of_the_next_images() -> None:
    """Independent, both of two are lost with probability 0.05 squared; the draws here are as near as draws can be."""
    draws = torch.full((64, augment.DRAWS), 0.5) + torch.arange(64)[:, None] * 2**-24
    images = noise(64, 64, 64)
    lost = (augment.apply("salt_pepper", images, draws) != images).any(1)
    pairs = {
        "row": lost[:, 1:] & lost[:, :-1],
        "column": lost[:, :, 1:] & lost[:, :, :-1],
        "image": lost[1:] & lost[:-1],
    }
    for both in pairs.values():
        share = 0.05**2
        assert abs(int(both.sum()) - share * both.numel()) < 4 * math.sqrt(both.numel() * share * (1 - share))
    assert len({image.numpy().tobytes() for image in lost}) == 64
