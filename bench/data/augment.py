"""Image augmentations on whole batches, on any device. All the chance in an image is in the numbers handed in for it.

images: (N, 3, H, W) float32 in 0..255. draws: (N, DRAWS) float32, uniform in [0, 1), on the same device. Nothing else
is drawn, and no image looks at another, so that what becomes of one depends neither on the batch nor on the rank.
Nothing is copied to the device or read from it, so that a GPU is never waited for.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DRAWS = 6  # numbers for an image, more than any augmentation takes
DEGREES = 15.0  # rotation: at most, either way
JITTER = (0.6, 1.4)  # color_jitter: the factors of brightness, contrast and saturation
HUE_TURNS = 0.1  # color_jitter: of the hue, at most, either way
CROP_AREA = (0.08, 1.0)  # resized_crop: share of the image, torchvision's default
CROP_RATIO = (3 / 4, 4 / 3)  # resized_crop: width / height, torchvision's default
KEPT = 3 / 4  # resize, center_crop: of each side
HOLE = 1 / 2  # cutout: of the shorter side (DeVries & Taylor 2017, 16 of CIFAR-10's 32 pixels)
BLUR_SIGMA = (0.1, 2.0)  # blur: pixels
BLUR_REACH = 2  # blur: pixels on each side, a kernel of 5
NOISE = 0.05  # salt_pepper: probability that a pixel is lost, half of it to each colour

GREY = (0.2989, 0.587, 0.114)  # of red, green and blue, as torchvision weighs them
# YIQ is the plane of U = 0.492 (blue - luma) and V = 0.877 (red - luma) seen from another angle.
BLUE_TO_RED = 0.492111 / 0.877283


def apply(name: str, images: Tensor, draws: Tensor) -> Tensor:
    """The augmentation of this name, one of NAMES: float32 of the images' shape and memory format, within 0..255."""
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    made = _AUGMENTATIONS[name](images, draws).clamp_(0, 255)  # an interpolation overshoots by a rounding
    return made.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def rotation(images: Tensor, draws: Tensor) -> Tensor:
    """Turned about the centre by up to DEGREES, counter-clockwise for a draw above 0.5; bilinear, outside is black."""
    height, width = images.shape[-2:]
    angle = _between(-math.radians(DEGREES), math.radians(DEGREES), draws[:, 0])
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([cos, -sin * (height / width), zero, sin * (width / height), cos, zero], 1).view(-1, 2, 3)
    # affine_grid is a matrix product: TF32 or autocast would round where a pixel comes from, and they leave float64 be.
    grid = F.affine_grid(matrix.double(), list(images.shape), align_corners=False).float()
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def color_jitter(images: Tensor, draws: Tensor) -> Tensor:
    """Brightness, contrast and saturation by factors in JITTER, then the hue by up to HUE_TURNS; clamped after each."""
    brightness, contrast, saturation = (_between(*JITTER, _per_image(draws[:, i])) for i in range(3))
    images = (images * brightness).clamp_(0, 255)
    images = torch.lerp(_grey(images).mean((1, 2, 3), keepdim=True), images, contrast).clamp_(0, 255)
    images = torch.lerp(_grey(images), images, saturation).clamp_(0, 255)
    return hue(images, _between(-HUE_TURNS, HUE_TURNS, draws[:, 3])).clamp_(0, 255)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """The colours turned about the grey axis in YIQ, towards yellow from red, by these turns (N,). Not clamped.

    A linear map (a 3x3 matrix) that keeps grey and luma. torchvision's adjust_hue goes through HSV and differs: it
    keeps the largest and the smallest channel instead.
    """
    angle = _per_image(turns * (2 * math.pi))
    cos, sin = angle.cos(), angle.sin()
    red, green, blue = images.split(1, 1)
    luma = _grey(images) / sum(GREY)
    v, u = red - luma, blue - luma
    # Written as what is added, so that no turn is exactly no change.
    more_red = (cos - 1) * v + (sin * BLUE_TO_RED) * u
    more_blue = (cos - 1) * u - (sin / BLUE_TO_RED) * v
    more_green = (GREY[0] * more_red + GREY[2] * more_blue) / -GREY[1]
    return torch.cat([red + more_red, green + more_green, blue + more_blue], 1)


def resized_crop(images: Tensor, draws: Tensor) -> Tensor:
    """A window of random area, aspect ratio and place, in whole pixels, brought to H x W by bilinear sampling.

    As torchvision's RandomResizedCrop, but for a window that sticks out: there the draw is repeated, here the side is
    cut to the image's. A window is never larger than the image, so that there is nothing to antialias.
    """
    height, width = images.shape[-2:]
    area = _between(*CROP_AREA, draws[:, 0]) * (height * width)
    ratio = _between(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1]), draws[:, 1]).exp()
    rows = _window((area / ratio).sqrt(), draws[:, 2], height)
    columns = _window((area * ratio).sqrt(), draws[:, 3], width)
    grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], rows[:, :, None]), -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def resize(images: Tensor, draws: Tensor) -> Tensor:
    """Shrunk to KEPT of each side and brought back, bilinear with antialiasing: detail is lost. Not random."""
    height, width = images.shape[-2:]
    return _resized(_resized(images, _kept(height), _kept(width)), height, width)


def center_crop(images: Tensor, draws: Tensor) -> Tensor:
    """The middle KEPT of each side, brought back to H x W. Not random."""
    height, width = images.shape[-2:]
    rows, columns = _kept(height), _kept(width)
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    return _resized(images[:, :, top : top + rows, left : left + columns], height, width)


def cutout(images: Tensor, draws: Tensor) -> Tensor:
    """A square of HOLE of the shorter side is blanked, its centre on any pixel, so that borders may cut it.

    Blank is the image's own mean, by channel: near 0 once the images are normalised, as in the paper. 0 would be black.
    """
    height, width = images.shape[-2:]
    side = max(1, round(min(height, width) * HOLE))
    rows, columns = _hole(draws[:, 0], side, height), _hole(draws[:, 1], side, width)
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], images.mean((2, 3), keepdim=True), images)


def blur(images: Tensor, draws: Tensor) -> Tensor:
    """Gaussian, its standard deviation in BLUR_SIGMA, reflected at the borders: sides of at least 3 pixels."""
    place = torch.arange(-BLUR_REACH, BLUR_REACH + 1, device=images.device)
    weights = torch.softmax(-0.5 * (place / _between(*BLUR_SIGMA, draws[:, :1])) ** 2, 1)
    # Sums of shifted images: a grouped convolution with a kernel for each image is many times slower on a CPU.
    for dim, pad in ((2, (0, 0, BLUR_REACH, BLUR_REACH)), (3, (BLUR_REACH, BLUR_REACH, 0, 0))):
        padded, side = F.pad(images, pad, mode="reflect"), images.shape[dim]
        images = padded.narrow(dim, 0, side) * _per_image(weights[:, 0])
        for i in range(1, len(place)):
            images.addcmul_(padded.narrow(dim, i, side), _per_image(weights[:, i]))
    return images


def salt_pepper(images: Tensor, draws: Tensor) -> Tensor:
    """Each pixel is lost with probability NOISE, all channels together, to white or black alike.

    The noise is a hash of the bits of the image's first draw and the pixel's number, in whole numbers: the same on
    every device.
    """
    height, width = images.shape[-2:]
    pixel = torch.arange(height * width, device=images.device)
    key = _hashed(draws[:, :1].contiguous().view(torch.int32).long())
    hashed = _hashed(key ^ pixel).view(-1, 1, height, width)
    share = round(NOISE / 2 * 2**32)
    return images.masked_fill(hashed < share, 255).masked_fill_(hashed >= 2**32 - share, 0)


def _between(low: float, high: float, draw: Tensor) -> Tensor:
    return low + (high - low) * draw


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _grey(images: Tensor) -> Tensor:
    """(N, 1, H, W)"""
    red, green, blue = images.split(1, 1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _kept(side: int) -> int:
    return max(1, round(side * KEPT))


def _resized(images: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(images, size=(height, width), mode="bilinear", antialias=True, align_corners=False)


def _window(length: Tensor, draw: Tensor, side: int) -> Tensor:
    """Where a side's pixels sample a window of this length (N,), put by the draw (N,): (N, side), in -1..1."""
    length = length.round().clamp(1, side)
    first = _first(draw, side - length + 1)
    middle = torch.arange(side, device=draw.device) + 0.5
    # Not beyond the middle of the window's outermost pixels: what lies outside the window is not seen.
    offset = (middle * (length / side)[:, None]).clamp(min=0.5).minimum(length[:, None] - 0.5)
    return (first[:, None] + offset) * (2 / side) - 1


def _hole(draw: Tensor, length: int, side: int) -> Tensor:
    """Which of a side's pixels are less than half a length from a centre: bool (N, side)."""
    first = _first(draw, torch.full_like(draw, side)) - length // 2
    place = torch.arange(side, device=draw.device) - first[:, None]
    return (place >= 0) & (place < length)


def _first(draw: Tensor, choices: Tensor) -> Tensor:
    """A whole number in 0..choices - 1. The largest draw times the choices may round up to all of them."""
    return (draw * choices).floor().minimum(choices - 1)


def _hashed(values: Tensor) -> Tensor:
    """MurmurHash3's last step, of int64 in 0..2^32 - 1. Less 2^32, its factors do the same and overflow nothing."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        values = ((values ^ (values >> shift)) * (factor - 2**32)) & 0xFFFFFFFF
    return values ^ (values >> 16)


_AUGMENTATIONS = {
    function.__name__: function
    for function in (rotation, color_jitter, resized_crop, resize, center_crop, cutout, blur, salt_pepper)
}
NAMES: tuple[str, ...] = tuple(_AUGMENTATIONS)
