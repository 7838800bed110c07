"""Evaluating a checkpoint: it gives what the trial that wrote it gave, wherever and however it is read again."""

import dataclasses
import functools
import json
from pathlib import Path

import planted
import pytest
import torch
from launching import python
from standin_cuda.standin import Standin
from voc_folder import below, plant

from bench.data import datasets
from bench.record.run_folder import RunFolder
from bench.training import checkpoint
from bench.training.checkpoint_evaluation import evaluate_model, load_images
from launch.cli import main
from models import cifar

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
    assert f"resnet8 on digits at 8 pixels in fp32 on cpu: {share:.2f}% of 100 images" in capsys.readouterr().out
    (row, *_) = RunFolder(tmp_path).rows("per_class")
    facts = json.loads((tmp_path / "logs" / f"{row['launch_id']}.json").read_text())
    assert (facts["checkpoint"], facts["data"], facts["images"]) == (str(path), "digits", 100)
    assert facts["accuracy"] == float(trained.row()["eval_accuracy"])
    assert facts["loss"] == pytest.approx(float(trained.row()["eval_loss"]), rel=1e-5)


# With each of these variables, in a fork of a process that has imported what takes long and has used no device.
EVALUATE = """
import os, sys
from bench.entry import imports_that_stay
from launch.cli import main
with imports_that_stay():
    import bench.training.checkpoint_evaluation

for name in ("NOTHING=1", "ACCELERATE_USE_CPU=true", "STANDIN_CUDA_DRIVER=11040"):
    if os.fork() == 0:
        os.environ.update([name.split("=")])
        for stream, end in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{sys.argv[1]}/{name}.{end}", os.O_WRONLY | os.O_CREAT), stream)
        main(["evaluate", *sys.argv[2:]])
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def test_it_is_evaluated_on_the_gpu_unless_the_cpu_is_asked_for(
    standin_cuda: Standin, trained: planted.Ran, tmp_path: Path
) -> None:
    path = checkpoint.path_for(trained.folder, trained.trial)
    words = [str(tmp_path), str(path), "--out", str(tmp_path / "out")]
    done = python("-c", EVALUATE, *words, env=standin_cuda.variables())
    assert done.stdout.split() == ["0", "0", "2"], done.stderr
    said = {file.name: file.read_text() for file in tmp_path.glob("*.*")}
    assert "in fp32 on cuda: " in said["NOTHING=1.out"]
    assert "in fp32 on cpu: " in said["ACCELERATE_USE_CPU=true.out"]
    (line,) = said["STANDIN_CUDA_DRIVER=11040.err"].splitlines()
    assert line.startswith("error: ")
    assert "cannot use them: " in line
    assert said["STANDIN_CUDA_DRIVER=11040.out"] == ""


def test_it_is_evaluated_in_the_precision_that_it_was_trained_in(tmp_path: Path) -> None:
    trial = planted.small(precision="bf16", limit_eval=None)
    ran = planted.well(planted.run(tmp_path / "run", trial, ACCELERATE_MIXED_PRECISION="bf16"))
    path = checkpoint.path_for(ran.folder, ran.trial)
    assert evaluated(path, tmp_path) == 0
    (facts,) = (json.loads(file.read_text()) for file in (tmp_path / "logs").glob("*.json"))
    assert facts["precision"] == "bf16"
    assert facts["loss"] == pytest.approx(float(ran.row()["eval_loss"]), rel=1e-6)
    _, model = checkpoint.load_model(path)
    plain, _ = evaluate_model(dataclasses.replace(ran.trial, precision="no"), model, datasets.load(ran.trial, tmp_path))
    assert plain.loss != pytest.approx(facts["loss"], rel=1e-6)  # so that it would be seen


def test_a_head_behind_a_dropout_is_the_files_own(tmp_path: Path) -> None:
    """Random in its place, it would be evaluated in silence."""
    torch.manual_seed(1)
    model = cifar.resnet(8)
    state = {key.replace("fc.", "fc.1."): tensor for key, tensor in model.state_dict().items()}
    torch.save(state, tmp_path / "bare.pt")
    _, loaded = checkpoint.load_model(tmp_path / "bare.pt", "resnet8")
    assert torch.equal(loaded.state_dict()["fc.weight"], model.state_dict()["fc.weight"])


def test_a_bare_file_is_taken_for_cifar10s_unless_digits_are_named(tmp_path: Path) -> None:
    plant(tmp_path)
    torch.save(cifar.resnet(8).state_dict(), tmp_path / "bare.pt")
    words = ["--model", "resnet8", "--evaluate-on", "voc", "--data-root", str(tmp_path)]
    assert evaluated(tmp_path / "bare.pt", tmp_path, *words) == 0
    assert len(rows(tmp_path, "evaluate_on")) == 10
    assert rows(tmp_path, "evaluation") == []


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
    plant(tmp_path)
    found = load_images(planted.small(data="cifar10", evaluate_on="voc"), tmp_path)
    assert (found.mean, found.std) == datasets.CIFAR10_STATISTICS
    found = load_images(planted.small(model="resnet18", data="cifar10", evaluate_on="voc"), tmp_path)
    assert (found.mean, found.std) == datasets.IMAGENET_STATISTICS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate"], "evaluate: the following arguments are required: CHECKPOINT; see "),
        (["evaluate", "none.pt"], "no weights file none.pt; check the path"),
        (
            ["evaluate", "CHECKPOINT", "--evaluate-on", "voc"],
            "--evaluate-on is voc, which is not another data set with the classes",
        ),
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
