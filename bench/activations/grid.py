"""A grid of grey tiles as a PNG, one tile for each channel of a layer, with numbers and red frames."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL import __version__ as pillow

from bench.errors import UsageError

WIDEST = 1300  # pixels for all tiles of a row, unless a value would get less than one
LARGEST_TILE = 128
NARROWEST = 560  # room for the text
GAP = 6
FRAME = 3
MARGIN = 14
RED = (214, 39, 40)
INK = (30, 30, 30)
BACKGROUND = (205, 219, 238)  # a colour on which both white and black tiles can be seen
TITLE_SIZE, TEXT_SIZE, NUMBER_SIZE = 20, 14, 11


@dataclass(frozen=True)
class Layout:
    """Where the tiles of `channels` channels are. A tile has height x width values of `scale` pixels each."""

    channels: int
    height: int
    width: int
    left: int = 0
    top: int = 0

    @property
    def columns(self) -> int:
        return math.ceil(math.sqrt(self.channels))

    @property
    def rows(self) -> int:
        return math.ceil(self.channels / self.columns)

    @property
    def scale(self) -> int:
        side = max(self.height, self.width)
        return max(1, min(WIDEST // (self.columns * side), LARGEST_TILE // side))

    @property
    def tile(self) -> tuple[int, int]:
        """(width, height) of a tile in pixels."""
        return self.width * self.scale, self.height * self.scale

    def corner(self, channel: int) -> tuple[int, int]:
        """(x, y) of a tile's top left pixel; tiles are in reading order."""
        row, column = divmod(channel, self.columns)
        width, height = self.tile
        return self.left + GAP + column * (width + GAP), self.top + GAP + row * (height + GAP)

    def end(self) -> tuple[int, int]:
        """(x, y) where the grid ends."""
        width, height = self.tile
        return self.left + GAP + self.columns * (width + GAP), self.top + GAP + self.rows * (height + GAP)


def grey(values: np.ndarray) -> np.ndarray:
    """Each channel of (C, H, W) in its own range: uint8, its minimum 0, its maximum 255; 0 if it is constant."""
    values = values.astype(np.float64)
    low = values.min(axis=(1, 2), keepdims=True)
    span = values.max(axis=(1, 2), keepdims=True) - low
    scaled = np.divide((values - low) * 255, span, out=np.zeros_like(values), where=span > 0)
    return np.rint(scaled).astype(np.uint8)


def draw(values: np.ndarray, framed: Sequence[bool], title: str, text: Sequence[str]) -> tuple[bytes, Layout]:
    """(a PNG of all channels of (C, H, W) below a title and paragraphs, the layout of its tiles).

    A tile's channel is the number on its left plus the number above. Tiles of `framed` channels have a red frame.
    Raises UsageError if Pillow is too old.
    """
    number = _font(NUMBER_SIZE)
    channels, height, width = values.shape
    left = MARGIN + math.ceil(number.getlength(str(channels))) + 4
    grid = Layout(channels, height, width, left)
    image_width = max(NARROWEST, grid.end()[0] + MARGIN)
    words = _lines(title, text, image_width - 2 * MARGIN)
    top = MARGIN + sum(size + 7 for _, size in words) + NUMBER_SIZE + 10
    grid = Layout(channels, height, width, left, top)
    image = Image.new("RGB", (image_width, grid.end()[1] + MARGIN), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((left, top, *grid.end()), fill=BACKGROUND)
    y = MARGIN
    for line, size in words:
        pen.text((MARGIN, y), line, fill=INK, font=_font(size))
        y += size + 7
    for channel, tile in enumerate(grey(values)):
        x, y = grid.corner(channel)
        if framed[channel]:
            pen.rectangle((x - FRAME, y - FRAME, x + grid.tile[0] + FRAME - 1, y + grid.tile[1] + FRAME - 1), fill=RED)
        image.paste(Image.fromarray(tile).resize(grid.tile, Image.Resampling.NEAREST), (x, y))
    _number(pen, grid, number)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue(), grid


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font in this size. Raises UsageError if this Pillow, which came with torchvision, is too old."""
    try:
        return ImageFont.load_default(size)
    except (TypeError, ImportError) as error:
        raise UsageError(f"Pillow {pillow} has no font to label with; pip install 'pillow>=10.1'") from error


def _lines(title: str, text: Sequence[str], width: int) -> list[tuple[str, int]]:
    """(line, font size) of title and text, wrapped to this width in pixels."""
    lines = []
    for paragraph, size in [(title, TITLE_SIZE), *((each, TEXT_SIZE) for each in text)]:
        letter = _font(size).getlength(paragraph) / len(paragraph)
        # 7% less than fits on average: some lines have wider letters than others.
        lines += [(line, size) for line in textwrap.wrap(paragraph, int(0.93 * width / letter))]
    return lines


def _number(pen: ImageDraw.ImageDraw, grid: Layout, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    """Write each row's first channel on its left and each column's offset above, as often as there is room."""
    width, height = grid.tile
    every = math.ceil((font.getlength(f"+{grid.columns}") + 4) / (width + GAP))
    for column in range(0, grid.columns, every):
        x, y = grid.corner(column)
        pen.text((x + width / 2, y - GAP - 3), f"+{column}", fill=INK, font=font, anchor="mb")
    every = math.ceil(NUMBER_SIZE / (height + GAP))
    for row in range(0, grid.rows, every):
        x, y = grid.corner(row * grid.columns)
        pen.text((x - GAP - 4, y + height / 2), str(row * grid.columns), fill=INK, font=font, anchor="rm")
