"""A VOC folder of planted photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from bench.data import datasets, voc
from bench.data.dataset import DataSet
from bench.trial import Trial

Object = tuple[str, str, tuple[int, int, int, int]]  # name, colour, (xmin, ymin, xmax, ymax) as VOC counts, from 1


RED, LIME, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


TRAIN: dict[str, list[Object]] = {
    "2008_000001": [("cat", "red", (1, 1, 20, 10)), ("person", "blue", (30, 30, 40, 40))],
    "2008_000002": [("aeroplane", "lime", (11, 21, 50, 40))],
}


VAL: dict[str, list[Object]] = {
    "2008_000003": [("dog", "red", (5, 5, 34, 44)), ("car", "blue", (41, 1, 60, 50))],
    "2008_000004": [("bird", "lime", (1, 1, 60, 50))],
    "2008_000005": [("horse", "red", (1, 1, 60, 50))],
}


SIZE = (60, 50)


def plant(root: Path, difficult: Sequence[str] = ()) -> Path:
    """A VOC folder whose objects are rectangles of one colour on black; objects of these names are difficult."""
    folder = root / voc.FOLDER
    for part in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (folder / part).mkdir(parents=True)
    for image_set, images in (("train", TRAIN), ("val", VAL)):
        (folder / f"ImageSets/Main/{image_set}.txt").write_text("\n".join(images) + "\n")
        for name, objects in images.items():
            picture = Image.new("RGB", SIZE)
            pen = ImageDraw.Draw(picture)
            lines = []
            for kind, colour, (left, top, right, bottom) in objects:
                pen.rectangle((left - 1, top - 1, right - 1, bottom - 1), fill=colour)
                box = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
                hard = int(kind in difficult)
                lines.append(f"<object><name>{kind}</name><difficult>{hard}</difficult><bndbox>{box}</bndbox></object>")
            picture.save(folder / f"JPEGImages/{name}.jpg", quality=100, subsampling=0)
            (folder / f"Annotations/{name}.xml").write_text(f"<annotation>{''.join(lines)}</annotation>")
    return folder


def below(folder: Path, trial: Trial, root: Path) -> DataSet:
    """The trial's data, out of this folder."""
    return datasets.load(trial, folder)
