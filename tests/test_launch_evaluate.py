"""Evaluating a checkpoint: it gives what the trial that wrote it gave, wherever and however it is read again."""

import functools
from pathlib import Path

import planted
import pytest
import torch
from test_bench_voc import below, plant

from bench import checkpoint, data
from bench.record import RunFolder
from launch.cli import main

ITSELF = ("part", "data", "label", "class_name", "images", "accuracy", "predicted")


def rows(folder: Path, part: str) -> list[tuple[str, ...]]:
    """What per_class.csv says, launches aside."""
    found = [row for row in RunFolder(folder).rows("per_class") if row["part"] == part]
    return [tuple(row[name] for name in ITSELF) for row in found]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> planted.Ran:
    """Two processes on digits."""
    trial = planted.small(processes=2, epochs=2, limit_train=200, limit_eval=100, classes=(3, 1, 8), shortcut="B")
    return planted.well(planted.run(tmp_path_factory.mktemp("trained"), trial))


def evaluated(path: Path, out: Path, *words: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(path), "--out", str(out), *words])
    return ended.value.code


def test_a_checkpoint_of_two_processes_does_as_well_in_one(
    trained: planted.Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint.path_for(trained.folder, trained.trial)
    assert evaluated(path, tmp_path) == 0
    assert len(rows(tmp_path, "evaluation")) == 3
    assert rows(tmp_path, "evaluation") == rows(trained.folder, "evaluation")
    share = 100 * float(trained.row()["eval_accuracy"])
    assert f"resnet8 on digits: {share:.2f}% of 100 images" in capsys.readouterr().out


def test_a_bare_state_dict_needs_its_model_and_data_named(trained: planted.Ran, tmp_path: Path) -> None:
    path = tmp_path / "bare.pt"
    torch.save(trained.state()["model"], path)
    # All ten digits are asked of a head of three.
    assert evaluated(path, tmp_path, "--model", "resnet8", "--evaluate-on", "digits") == 2
    assert not (tmp_path / "per_class.csv").exists()


def test_a_bare_state_dict_of_all_classes(tmp_path: Path) -> None:
    trial = planted.small(epochs=1, limit_train=100, limit_eval=None, image_size=32)
    ran = planted.well(planted.run(tmp_path / "run", trial))
    torch.save({f"module.{key}": tensor for key, tensor in ran.state()["model"].items()}, tmp_path / "bare.pt")
    assert evaluated(tmp_path / "bare.pt", tmp_path, "--model", "resnet8", "--evaluate-on", "digits") == 0
    assert len(rows(tmp_path, "evaluation")) == 10
    assert [row[4] for row in rows(tmp_path, "evaluation")] == [row[4] for row in rows(ran.folder, "evaluation")]


def test_another_data_set_is_normalised_as_the_one_trained_on(tmp_path: Path) -> None:
    plant(tmp_path / "data")
    trial = planted.small(data="synthetic", evaluate_on="voc", limit_windows=2, limit_eval=None)
    ran = planted.well(planted.run(tmp_path / "run", trial, load=functools.partial(below, tmp_path / "data")))
    path = checkpoint.path_for(ran.folder, trial)
    assert evaluated(path, tmp_path, "--evaluate-on", "voc", "--data-root", str(tmp_path / "data")) == 0
    assert rows(tmp_path, "evaluate_on") == rows(ran.folder, "evaluate_on")
    assert sum(int(row[4]) for row in rows(tmp_path, "evaluate_on")) == 3


def test_statistics_are_those_of_the_data_set_that_was_trained_on(tmp_path: Path) -> None:
    from launch.evaluate import images

    plant(tmp_path)
    found = images(planted.small(data="cifar10", evaluate_on="voc"), tmp_path)
    assert (found.mean, found.std) == data.CIFAR10_STATISTICS
    found = images(planted.small(model="resnet18", data="cifar10", evaluate_on="voc"), tmp_path)
    assert (found.mean, found.std) == data.IMAGENET_STATISTICS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate"], "evaluate needs a checkpoint first"),
        (["evaluate", "none.pt"], "no weights file none.pt; check the path"),
        (["evaluate", "CHECKPOINT", "--evaluate-on", "voc"], "--evaluate-on voc is no other data set with the classes"),
        (["evaluate", "CHECKPOINT", "--model", "resnet20"], "is of resnet8, not of resnet20; leave --model out"),
        (["evaluate", "CHECKPOINT", "--limit-eval", "0"], "--limit-eval is 0; give 1 or more"),
        (["evaluate", "CHECKPOINT", "--out", "/proc/none"], "cannot write to --out /proc/none"),
    ],
)
def test_what_cannot_be_evaluated(
    words: list[str], said: str, trained: planted.Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(checkpoint.path_for(trained.folder, trained.trial))
    out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main([path if word == "CHECKPOINT" else word for word in words] + out)
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.rglob("*.csv"))
