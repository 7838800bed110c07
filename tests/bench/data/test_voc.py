"""VOC: objects are cut out of planted photographs to the pixel, and a damaged folder is refused in one sentence."""

import functools
import re
from pathlib import Path

import numpy as np
import planted
import pytest
import torch
from PIL import Image
from voc_folder import BLUE, LIME, RED, SIZE, below, plant

from bench.data import datasets, voc
from bench.errors import UsageError
from bench.trial import Trial


def test_objects_are_cut_out_to_the_pixel_and_labelled_as_in_cifar10(tmp_path: Path) -> None:
    plant(tmp_path)
    train, val = voc.load(tmp_path, 12)
    assert [datasets.CIFAR10_NAMES[label] for label in train.labels] == ["cat", "airplane"]
    assert [datasets.CIFAR10_NAMES[label] for label in val.labels] == ["dog", "automobile", "bird"]
    for split, colours in ((train, (RED, LIME)), (val, (RED, BLUE, LIME))):
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(colours), 3, 12, 12)
        for image, colour in zip(split.images, colours, strict=True):
            # A box one pixel too large would hold black.
            assert (image.int() - torch.tensor(colour)[:, None, None]).abs().max() < 12


def test_no_pixel_of_an_object_is_lost(tmp_path: Path) -> None:
    """On a ramp of 4 a pixel, cut out in its own size of 20 x 20: from (31, 11) to (50, 30), both within."""
    folder = plant(tmp_path)
    columns = np.arange(SIZE[0], dtype=np.uint8) * 4
    ramp = np.broadcast_to(columns[None, :, None], (SIZE[1], SIZE[0], 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(folder / "JPEGImages/2008_000004.jpg", quality=100, subsampling=0)
    path = folder / "Annotations/2008_000004.xml"
    box = "<xmin>31</xmin><ymin>11</ymin><xmax>50</xmax><ymax>30</ymax>"
    path.write_text(re.sub("<xmin>.*</ymax>", box, path.read_text()))
    cut = voc.load(tmp_path, 20)[1].images[-1].int()
    assert (cut - torch.arange(30, 50).int() * 4).abs().max() <= 2


def test_difficult_objects_are_left_out(tmp_path: Path) -> None:
    plant(tmp_path, difficult=["dog"])
    _, val = voc.load(tmp_path, 4)
    assert [datasets.CIFAR10_NAMES[label] for label in val.labels] == ["automobile", "bird"]


def test_it_is_a_data_set_like_the_others(tmp_path: Path) -> None:
    plant(tmp_path)
    found = datasets.load(Trial(data="voc", image_size=8, classes=(5, 1, 3)), tmp_path)
    assert found.names == ("dog", "automobile", "cat")
    assert found.train.labels.tolist() == [2]
    assert found.evaluation.labels.tolist() == [0, 1]


def test_classes_that_it_has_no_image_of_are_refused(tmp_path: Path) -> None:
    plant(tmp_path)
    for trial in (
        Trial(data="voc", image_size=8, classes=(6, 7)),
        Trial(data="synthetic", evaluate_on="voc", image_size=8, classes=(6, 7)),
    ):
        with pytest.raises(UsageError, match="voc has no image of --classes 6 7; choose others"):
            datasets.load(trial, tmp_path)


def boxless(folder: Path) -> None:
    (folder / "Annotations/2008_000003.xml").write_text("<annotation><object><name>dog</name></object></annotation>")


def no_image(folder: Path) -> None:
    (folder / "JPEGImages/2008_000003.jpg").write_bytes(b"no picture")


def cut_short(folder: Path) -> None:
    path = folder / "JPEGImages/2008_000003.jpg"
    path.write_bytes(path.read_bytes()[:700])


def no_annotation(folder: Path) -> None:
    (folder / "Annotations/2008_000003.xml").unlink()


def no_xml(folder: Path) -> None:
    (folder / "Annotations/2008_000003.xml").write_text("<annotation>")


def outside(folder: Path) -> None:
    path = folder / "Annotations/2008_000003.xml"
    path.write_text(path.read_text().replace("<xmax>34", "<xmax>3400"))


def without_objects(folder: Path) -> None:
    (folder / "Annotations/2008_000003.xml").write_text("<annotation><size>1</size></annotation>")


def nothing_of_ours(folder: Path) -> None:
    (folder / "ImageSets/Main/val.txt").write_text("2008_000005\n")


def no_lists(folder: Path) -> None:
    (folder / "ImageSets/Main/val.txt").unlink()


DAMAGE = [boxless, no_image, cut_short, no_annotation, no_xml, outside, nothing_of_ours, no_lists]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_folder_is_refused_in_one_sentence(damage: object, tmp_path: Path) -> None:
    assert callable(damage)
    damage(plant(tmp_path))
    with pytest.raises(UsageError) as said:
        voc.load(tmp_path, 8)
    text = str(said.value)
    assert text.startswith("voc")
    assert str(tmp_path) in text
    assert "\n" not in text
    assert "; " in text


def test_an_image_without_objects_has_none(tmp_path: Path) -> None:
    without_objects(plant(tmp_path))
    assert len(voc.load(tmp_path, 8)[1]) == 1


def test_a_missing_folder_says_what_to_unpack(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"voc is incomplete in .*VOC2012 .*unpack VOC2012's trainval archive in "):
        voc.load(tmp_path, 8)


def test_a_trial_evaluates_on_it_after_its_last_epoch_class_by_class(tmp_path: Path) -> None:
    plant(tmp_path / "data")
    trial = planted.small(data="synthetic", evaluate_on="voc", limit_windows=2, epochs=2, limit_eval=None)

    ran = planted.well(planted.run(tmp_path / "run", trial, load=functools.partial(below, tmp_path / "data")))
    rows = [row for row in ran.rows("per_class") if row["part"] == "evaluate_on"]
    assert [(row["data"], int(row["label"])) for row in rows] == [("voc", label) for label in range(10)]
    assert [int(row["images"]) for row in rows] == [0, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    predicted = [list(map(int, row["predicted"].split())) for row in rows]
    assert [sum(row) for row in predicted] == [int(row["images"]) for row in rows]
    assert float(ran.row()["evaluate_on_accuracy"]) == sum(row[i] for i, row in enumerate(predicted)) / 3
    assert ran.row()["evaluate_on_images"] == "3"
    assert [row["accuracy"] == "" for row in rows] == [row["images"] == "0" for row in rows]
