"""--data folder:PATH: which images it is, how they reach a model, what is refused, and what tells it from another."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from pathlib import Path
from typing import Literal

import pytest
import torch
from PIL import Image

from bench.data import class_folders, datasets, image_files
from bench.data.dataset import in_files
from bench.data.pipeline import InputPipeline, free_bytes, free_for, pipeline_for
from bench.errors import UsageError
from bench.memory import prediction
from bench.training import build, checkpoint_evaluation
from bench.trial import Trial
from launch.group import accelerate_command
from launch.sweep import request

NAME = "resnet20_accumulation"
RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
CPU = torch.device("cpu")


def plant(root: Path, second: str = "val") -> Path:
    """Images of one colour, wide and tall: two for each of three classes to train on, one each to evaluate on."""
    for part, count in (("train", 2), (second, 1)):
        for name, colour in (("red", RED), ("blue", BLUE), ("green", GREEN)):
            (root / part / name / "more").mkdir(parents=True)
            for number in range(count):
                size = (12, 8) if number else (8, 12)
                Image.new("RGB", size, colour).save(root / part / name / ("more" if number else "") / f"{number}.png")
    (root / "train" / ".DS_Store").write_text("x")
    (root / "train" / "red" / ".DS_Store").write_text("x")
    return root


def trial_of(root: Path, *words: str) -> Trial:
    words = (NAME, "--arm", "16x1", "--device", "cpu", "--image-size", "6", "--data", f"folder:{root}", *words)
    (trial,) = request.read(words).trials
    return trial


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return plant(tmp_path / "mine")


@pytest.mark.parametrize("second", ["val", "test"])
def test_classes_are_the_folders_by_name_and_images_are_those_inside(tmp_path: Path, second: str) -> None:
    trial = trial_of(plant(tmp_path, second), "--classes", "2", "0")
    accelerate_command.check(trial, 0)
    assert trial.data_contents.startswith("9 images in 3 classes (")
    data = datasets.load(dataclasses.replace(trial, classes=()), Path())
    assert (data.names, data.classes, data.train.labels.tolist()) == (("blue", "green", "red"), 3, [0, 0, 1, 1, 2, 2])
    chosen = datasets.load(trial, Path())
    assert (chosen.names, chosen.train.labels.tolist()) == (("red", "blue"), [1, 1, 0, 0])
    assert [tuple(chosen.train.images[number][:, 3, 3].tolist()) for number in range(4)] == [BLUE, BLUE, RED, RED]
    assert chosen.evaluation.images[0:2].shape == (2, 3, 6, 6)
    with pytest.raises(UsageError, match=r"--classes has 3, but folder:.* has the classes 0 to 2"):
        datasets.load(dataclasses.replace(trial, classes=(0, 3)), Path())


def test_an_image_is_its_middle_square_resized(tmp_path: Path) -> None:
    picture = Image.new("L", (12, 4), 0)
    picture.paste(100, (2, 0, 10, 4))  # a filter that halves looks two pixels beyond the square
    picture.paste(50, (4, 0, 8, 4))
    picture.save(tmp_path / "grey.png")
    assert image_files.read(str(tmp_path / "grey.png"), 4).tolist() == torch.full((3, 4, 4), 50).tolist()
    halved = image_files.read(str(tmp_path / "grey.png"), 2)
    assert halved.shape == (3, 2, 2)
    assert 50 < int(halved.min()) == int(halved.max()) < 75


def test_they_are_resident_where_they_fit_and_read_by_the_loader_where_not_and_alike(folder: Path) -> None:
    trial = trial_of(folder, "--augment", "none", "--workers", "0", "--validation", "0.34")
    data = datasets.load(trial, Path())
    size = sum(split.images.numel() for split in (data.train, data.evaluation))
    assert in_files(data.train)
    assert datasets.checked(data, "a file of one's own") is data  # whose data() may return it
    assert [pipeline_for(trial, data, free) for free in (4.0 * size, 4.0 * size - 1)] == ["resident", "loader"]
    assert free_for(trial, data, torch.device("cpu")) == pytest.approx(free_bytes(trial, CPU), rel=0.2)
    made = {}
    for free in (4.0 * size, 4.0 * size - 1):
        pipeline = InputPipeline(trial, data, CPU, free)
        assert in_files(pipeline.data.train) == (pipeline.pipeline == "loader")
        batches = [*pipeline.train(0, [(0, 3), (3, 4)]), *pipeline.evaluate([(0, 3)])]
        batches += pipeline.evaluate([(0, 2)], pipeline.data.validation)
        made[pipeline.pipeline] = [tensor for batch in batches for tensor in batch]
    assert [tensor.shape[0] for tensor in made["loader"]] == [3, 3, 2, 2, 3, 3, 2, 2]
    assert all(torch.equal(one, other) for one, other in zip(made["resident"], made["loader"], strict=True))
    # A red image is red for the model too: the first channel is the greatest, after normalisation.
    values, labels = made["loader"][4:6]
    assert values[:, :, 0, 0].argmax(1).tolist() == [2, 1, 0]
    assert labels.tolist() == [0, 1, 2]


def test_what_a_loader_reads_takes_no_memory_as_a_whole(folder: Path) -> None:
    def allocated(pipeline: Literal["resident", "loader"]) -> int:
        trial = dataclasses.replace(trial_of(folder), image_size=512, micro_batch=2, model="resnet8", pipeline=pipeline)
        return prediction.predict(trial, "cpu").allocated_bytes

    assert allocated("resident") - allocated("loader") >= 9 * 3 * 512 * 512


def test_other_images_are_other_data(folder: Path, tmp_path: Path) -> None:
    before = trial_of(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert trial_of(tmp_path / "copy").key() == before.key()  # wherever it lies
    for change in ("size", "name"):
        shutil.copytree(folder, other := tmp_path / change)
        path = other / "train" / "red" / "0.png"
        if change == "size":
            path.write_bytes(path.read_bytes() + b"\0")
        else:
            path.rename(path.with_name("1.png"))
        after = trial_of(other)
        assert after.data_contents != before.data_contents
        assert after.key() != before.key()


def test_a_rank_is_told_the_folder_and_the_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    trial = trial_of(Path("mine"))
    assert trial == trial_of(folder)
    work = accelerate_command.work_of(trial, request.read([NAME]).options)
    assert work.words[:2] == ["--trial-key", trial.key()]
    assert work.words[work.words.index("--data") + 1] == f"folder:{folder}"
    assert "--data-contents" not in work.words
    assert class_folders.absolute("--data=folder:mine,digits") == f"--data=folder:{folder},digits"


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ("gone", r"no folder .*mine; give one with train/CLASS/"),
        ("flat", r"mine has no folder val; it needs train/CLASS/\*.jpg and val/CLASS/\*.jpg \(or test/\)"),
        ("no classes", r"mine/train has no class folder; give two or more"),
        ("one class", r"mine/val has one class folder, red; give two or more"),
        ("other classes", r"only one of train and val in .*mine has the class 'blue'; give both the same"),
        ("no image", r"the class folder .*train/red has no image; fill it"),
        ("by name", r"train/red/notes.txt is no image, by its name; remove it"),
        ("by content", r"train/red/page.jpg is no image; remove it, or get it again"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_before_anything_starts(folder: Path, spoilt: str, said: str) -> None:
    val, red = folder / "val", folder / "train" / "red"
    if spoilt == "gone":
        shutil.rmtree(folder)
    elif spoilt == "flat":
        shutil.rmtree(val)
    elif spoilt == "no classes":
        for each in ("red", "green", "blue"):
            shutil.rmtree(folder / "train" / each)
    elif spoilt == "one class":
        shutil.rmtree(val / "blue")
        shutil.rmtree(val / "green")
    elif spoilt == "other classes":
        shutil.rmtree(val / "blue")
    elif spoilt == "no image":
        shutil.rmtree(red)
        red.mkdir()
    else:
        (red / ("notes.txt" if spoilt == "by name" else "page.jpg")).write_text("<html>not found</html>")

    def asked() -> None:
        accelerate_command.check(trial_of(folder), 0)

    with pytest.raises(UsageError, match=said):
        asked()


@pytest.mark.parametrize(
    ("link", "to", "said"),
    [
        ("train/red/5.png", "nowhere", r"cannot read .*mine/train/red/5\.png: No such file or directory; mend it"),
        ("train/red/5.png", "5.png", r"cannot read .*mine/train/red/5\.png: Too many levels of symbolic links"),
        ("train/red/all", "..", r"mine/train/red/all is a link to a folder that it is in; remove it"),
        ("train/red/more/up", "../..", r"mine/train/red/more/up is a link to a folder that it is in; remove it"),
        ("train/pink", "nowhere", r"cannot read .*mine/train/pink: No such file or directory"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(folder: Path, link: str, to: str, said: str) -> None:
    (folder / link).symlink_to(to)
    with pytest.raises(UsageError, match=said):
        trial_of(folder)


def test_a_folder_that_nobody_may_enter_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:  # as the system does, but for root
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match=r"cannot read .*mine/train: Permission denied"):
        trial_of(folder)


def test_links_to_elsewhere_are_followed(folder: Path, tmp_path: Path) -> None:
    before = trial_of(folder).data_contents
    (folder / "train" / "red").rename(tmp_path / "kept")
    (folder / "train" / "red").symlink_to(tmp_path / "kept")
    class_folders.scan.cache_clear()
    assert trial_of(folder).data_contents == before


def test_a_file_that_breaks_off_is_named_when_it_is_read(folder: Path) -> None:
    path = folder / "train" / "red" / "0.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UsageError, match=r"cannot read the image .*train/red/0\.png: "):
        InputPipeline(trial_of(folder), datasets.load(trial_of(folder), Path()), CPU, 1e9)
    trial = trial_of(folder, "--pipeline", "loader", "--workers", "1")
    batches = InputPipeline(trial, datasets.load(trial, Path()), CPU).train(0, [(0, 6)])
    with pytest.raises(UsageError, match=r"^cannot read the image .*train/red/0\.png: .* remove it$"):
        next(batches)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_an_image_of_more_than_8_bits_is_not_taken_for_a_white_one(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "deep.tif"
    Image.new(mode, (4, 4), 1000).save(path)
    with Image.open(path) as picture:
        assert picture.mode[0] == mode[0]
    with pytest.raises(UsageError, match=rf"{path} has more than 8 bits for each pixel \(mode [IF]"):
        image_files.read(str(path), 4)


def test_evaluating_a_checkpoint_reads_each_image_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = trial_of(folder, "--workers", "0", "--model", "resnet8", "--eval-batch", "2")
    seen = []

    def read(path: str, size: int) -> torch.Tensor:
        seen.append(path)
        return whole(path, size)

    whole = image_files.read
    monkeypatch.setattr(image_files, "read", read)
    images = checkpoint_evaluation.load_images(trial, Path())
    model = build.model_for(trial, 3).eval()
    result, _ = checkpoint_evaluation.evaluate_model(trial, model, images)
    assert result.images() == 3
    assert sorted(seen) == [str(folder / "val" / name / "0.png") for name in ("blue", "green", "red")]


def test_a_checkpoint_is_evaluated_on_the_images_that_it_was_trained_on(folder: Path) -> None:
    trial = trial_of(folder)
    assert len(checkpoint_evaluation.load_images(trial, Path()).evaluation) == 3
    shutil.copy(folder / "val" / "red" / "0.png", folder / "val" / "red" / "1.png")
    class_folders.scan.cache_clear()
    with pytest.raises(UsageError, match=r"mine has 10 images in 3 classes .* the checkpoint is of 9 images in 3"):
        checkpoint_evaluation.load_images(trial, Path())
