"""Contact sheets: a tile is what the model sees in that epoch, to the pixel."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import augment_sheet, datasets
from bench.data.augment_sheet import EPOCHS, GAP, HEAD, IMAGES, MARGIN, TILE
from bench.data.dataset import DataSet, Split
from bench.experiments import load
from launch.cli import main

MINI = load("augmentation").trial("augmentation", "cutout", "mini")


def tile(page: Image.Image, row: int, column: int) -> np.ndarray:
    """The pixels of a tile, (TILE, TILE, 3)."""
    left, top = MARGIN + column * (TILE + GAP) + GAP * (column > 0), HEAD + row * (TILE + GAP)
    return np.asarray(page)[top : top + TILE, left : left + TILE].astype(int)


def test_a_sheet_shows_each_image_and_then_what_the_model_sees(tmp_path: Path) -> None:
    found = datasets.load(MINI, tmp_path)
    first = Split(found.train.images[:IMAGES], found.train.labels[:IMAGES])
    page = augment_sheet.draw(MINI, DataSet(first, first, 10, found.mean, found.std))
    squares = set()
    for row in range(IMAGES):
        source = first.images[row].permute(1, 2, 0).numpy().repeat(TILE // 32, 0).repeat(TILE // 32, 1).astype(int)
        assert abs(tile(page, row, 0) - source).max() <= 1
        for column in range(1, 1 + EPOCHS):
            changed = (abs(tile(page, row, column) - source) > 1).any(2)
            rows, columns = np.nonzero(changed)
            assert changed.any()
            assert max(np.ptp(rows), np.ptp(columns)) < TILE // 2  # cutout's square, of half the side
            squares.add((rows.min(), columns.min()))
    assert len(squares) > IMAGES * EPOCHS / 2


def test_every_arm_gets_its_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sheet", "augmentation", "--preset", "mini", "--arm", "none,blur", "-o", str(tmp_path / "deep" / "here")])
    assert ended.value.code == 0
    names = ["augmentation-none.png", "augmentation-blur.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / "deep" / "here" / name) for name in names]
    sizes = {Image.open(tmp_path / "deep" / "here" / name).size for name in names}
    assert len(sizes) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "sheet: the following arguments are required: EXPERIMENT; see python -m launch sheet --help"),
        (["augmentation", "--data", "synthetic"], "--data synthetic has no pictures"),
        (["augmentation", "--preset", "tiny"], "no preset 'tiny'; choose from: full, mini"),
        (["augmentation", "--image-size", "16,32"], "sheet draws a picture for each arm: give --image-size one value"),
        (["augmentation", "--preset", "mini", "--arm", "none", "-o", "/proc/none"], "cannot write /proc/none"),
    ],
)
def test_what_cannot_be_drawn(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sheet", *words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
