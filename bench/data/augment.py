"""Image augmentations of whole batches, on any device.

images: (N, 3, H, W) float32 in 0..255. draws: (N, DRAWS) float32, uniform in [0, 1), on the same device. The draws are
the only random numbers, and no image depends on another: an image's augmentation depends neither on its batch nor on
its rank. Nothing is copied to or from the device, so that the host never waits for a GPU.

Not torchvision's transforms: they draw once for a whole batch, or take images one by one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DRAWS = 6  # numbers for each image, more than any augmentation uses
DEGREES = 15.0  # rotation: at most, in either direction
JITTER = (0.6, 1.4)  # color_jitter: range of the factors of brightness, contrast and saturation
HUE_TURNS = 0.1  # color_jitter: turns of the hue, at most, in either direction
CROP_AREA = (0.08, 1.0)  # resized_crop: share of the image, torchvision's default
CROP_RATIO = (3 / 4, 4 / 3)  # resized_crop: width / height, torchvision's default
KEPT = 3 / 4  # resize, center_crop: share of each side
HOLE = 1 / 2  # cutout: share of the shorter side (DeVries & Taylor 2017, 16 of CIFAR-10's 32 pixels)
BLUR_SIGMA = (0.1, 2.0)  # blur: pixels
BLUR_RADIUS = 2  # blur: pixels on each side, a kernel of 5
NOISE = 0.05  # salt_pepper: probability that a pixel is replaced, half of them white and half black

GREY = (0.2989, 0.587, 0.114)  # weights of red, green and blue, torchvision's
# YIQ is the plane of U = 0.492 (blue - luma) and V = 0.877 (red - luma), rotated. The hue is the angle in either.
BLUE_TO_RED = 0.492111 / 0.877283


def apply(name: str, images: Tensor, draws: Tensor) -> Tensor:
    """The images augmented by `name`, one of NAMES: float32 in 0..255, in the same shape and memory format."""
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    augmented = _AUGMENTATIONS[name](images, draws).clamp_(0, 255)  # rounding in an interpolation can exceed 255
    return augmented.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def rotation(images: Tensor, draws: Tensor) -> Tensor:
    """Rotate about the centre by up to DEGREES, counter-clockwise for a draw above 0.5; bilinear, black outside."""
    height, width = images.shape[-2:]
    angle = _between(-math.radians(DEGREES), math.radians(DEGREES), draws[:, 0])
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([cos, -sin * (height / width), zero, sin * (width / height), cos, zero], 1).view(-1, 2, 3)
    # float64: affine_grid is a matrix product, and TF32 or autocast would round the coordinates of float32.
    grid = F.affine_grid(matrix.double(), list(images.shape), align_corners=False).float()
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def color_jitter(images: Tensor, draws: Tensor) -> Tensor:
    """Change brightness, contrast and saturation by factors in JITTER, then the hue by up to HUE_TURNS; clamp each."""
    brightness, contrast, saturation = (_between(*JITTER, _per_image(draws[:, i])) for i in range(3))
    images = (images * brightness).clamp_(0, 255)
    images = torch.lerp(_grey(images).mean((1, 2, 3), keepdim=True), images, contrast).clamp_(0, 255)
    images = torch.lerp(_grey(images), images, saturation).clamp_(0, 255)
    return hue(images, _between(-HUE_TURNS, HUE_TURNS, draws[:, 3])).clamp_(0, 255)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the colours about the grey axis in YIQ, from red towards yellow, by these turns (N,). Not clamped.

    A linear map (a 3x3 matrix) that keeps grey and luma. torchvision's adjust_hue differs: it goes through HSV and
    keeps the largest and the smallest channel.
    """
    angle = _per_image(turns * (2 * math.pi))
    cos, sin = angle.cos(), angle.sin()
    red, green, blue = images.split(1, 1)
    luma = _grey(images) / sum(GREY)
    v, u = red - luma, blue - luma
    # As differences to add, so that a turn of 0 changes nothing, without rounding. Green follows, since luma stays.
    more_red = (cos - 1) * v + (sin * BLUE_TO_RED) * u
    more_blue = (cos - 1) * u - (sin / BLUE_TO_RED) * v
    more_green = (GREY[0] * more_red + GREY[2] * more_blue) / -GREY[1]
    return torch.cat([red + more_red, green + more_green, blue + more_blue], 1)


def resized_crop(images: Tensor, draws: Tensor) -> Tensor:
    """A crop of random area, aspect ratio and position, in whole pixels, resized to H x W by bilinear sampling.

    As torchvision's RandomResizedCrop, except for a crop that is larger than the image: torchvision draws again, here
    the side is cut to the image's. Crops are only ever enlarged, so no antialiasing is needed.
    """
    height, width = images.shape[-2:]
    area = _between(*CROP_AREA, draws[:, 0]) * (height * width)
    ratio = _between(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1]), draws[:, 1]).exp()
    rows = _crop_coordinates((area / ratio).sqrt(), draws[:, 2], height)
    columns = _crop_coordinates((area * ratio).sqrt(), draws[:, 3], width)
    grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], rows[:, :, None]), -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def resize(images: Tensor, draws: Tensor) -> Tensor:
    """Shrink to KEPT of each side and enlarge again, bilinear with antialiasing; detail is lost. Not random."""
    height, width = images.shape[-2:]
    return _resized(_resized(images, _kept(height), _kept(width)), height, width)


def center_crop(images: Tensor, draws: Tensor) -> Tensor:
    """The middle KEPT of each side, enlarged to H x W. Not random."""
    height, width = images.shape[-2:]
    rows, columns = _kept(height), _kept(width)
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    return _resized(images[:, :, top : top + rows, left : left + columns], height, width)


def cutout(images: Tensor, draws: Tensor) -> Tensor:
    """Replace a square of HOLE of the shorter side, its centre on any pixel: the image's border may cut it.

    Its colour is the image's own mean, which is near 0 after normalisation, as in the paper. 0 here would be black.
    """
    height, width = images.shape[-2:]
    side = max(1, round(min(height, width) * HOLE))
    rows, columns = _hole(draws[:, 0], side, height), _hole(draws[:, 1], side, width)
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], images.mean((2, 3), keepdim=True), images)


def blur(images: Tensor, draws: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation in BLUR_SIGMA; borders are reflected. Sides of at least 3 pixels."""
    offset = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=images.device)
    # softmax(x) is exp(x) divided by its sum: the normalised weights of a Gaussian.
    weights = torch.softmax(-0.5 * (offset / _between(*BLUR_SIGMA, draws[:, :1])) ** 2, 1)
    # Sums of shifted images: a grouped convolution with a kernel for each image is many times slower on a CPU.
    for dim, pad in ((2, (0, 0, BLUR_RADIUS, BLUR_RADIUS)), (3, (BLUR_RADIUS, BLUR_RADIUS, 0, 0))):
        padded, side = F.pad(images, pad, mode="reflect"), images.shape[dim]
        images = padded.narrow(dim, 0, side) * _per_image(weights[:, 0])
        for i in range(1, len(offset)):
            images.addcmul_(padded.narrow(dim, i, side), _per_image(weights[:, i]))
    return images


def salt_pepper(images: Tensor, draws: Tensor) -> Tensor:
    """Replace each pixel with probability NOISE, all its channels, by white or black with equal chance.

    The noise is a hash of the bits of the image's first draw and the pixel's number, computed in integers: a device's
    own random numbers would differ from one device to another.
    """
    height, width = images.shape[-2:]
    pixel = torch.arange(height * width, device=images.device)
    key = _hashed(draws[:, :1].contiguous().view(torch.int32).long())
    hashed = _hashed(key ^ pixel).view(-1, 1, height, width)
    threshold = round(NOISE / 2 * 2**32)  # hashes are uniform in 0..2^32 - 1
    return images.masked_fill(hashed < threshold, 255).masked_fill_(hashed >= 2**32 - threshold, 0)


def _between(low: float, high: float, draw: Tensor) -> Tensor:
    return low + (high - low) * draw


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _grey(images: Tensor) -> Tensor:
    """The luma, (N, 1, H, W)."""
    red, green, blue = images.split(1, 1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _kept(side: int) -> int:
    return max(1, round(side * KEPT))


def _resized(images: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(images, size=(height, width), mode="bilinear", antialias=True, align_corners=False)


def _crop_coordinates(length: Tensor, draw: Tensor, side: int) -> Tensor:
    """Where the pixels of a side sample a crop of this length (N,), positioned by the draw (N,): (N, side) in -1..1."""
    length = length.round().clamp(1, side)
    first = _choice(draw, side - length + 1)
    middle = torch.arange(side, device=draw.device) + 0.5
    # Not beyond the middle of the crop's outermost pixels, or bilinear sampling would mix in pixels outside the crop.
    offset = (middle * (length / side)[:, None]).clamp(min=0.5).minimum(length[:, None] - 0.5)
    return (first[:, None] + offset) * (2 / side) - 1


def _hole(draw: Tensor, length: int, side: int) -> Tensor:
    """Which pixels of a side are in the hole of this length, whose centre the draw chooses: bool (N, side)."""
    first = _choice(draw, torch.full_like(draw, side)) - length // 2
    position = torch.arange(side, device=draw.device) - first[:, None]
    return (position >= 0) & (position < length)


def _choice(draw: Tensor, choices: Tensor) -> Tensor:
    """A whole number in 0..choices - 1. `minimum`, since the product with the largest draw can round up to choices."""
    return (draw * choices).floor().minimum(choices - 1)


def _hashed(values: Tensor) -> Tensor:
    """MurmurHash3's finaliser of int64 values in 0..2^32 - 1."""
    # The factors less 2^32 give the same result modulo 2^32, and no product overflows an int64.
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        values = ((values ^ (values >> shift)) * (factor - 2**32)) & 0xFFFFFFFF
    return values ^ (values >> 16)


_AUGMENTATIONS = {
    function.__name__: function
    for function in (rotation, color_jitter, resized_crop, resize, center_crop, cutout, blur, salt_pepper)
}
NAMES: tuple[str, ...] = tuple(_AUGMENTATIONS)
