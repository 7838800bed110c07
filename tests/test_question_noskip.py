"""The no-skip question, small enough to need no download: a ResNet-20 trained on the digits 0-4, then shown 5-9."""

from __future__ import annotations

import pytest
import torch

from bench.record.run_folder import RunFolder
from bench.training.build import model_for
from bench.training.checkpoint import path_for
from launch.sweep.matrix import trials

BLOCKS = ["layer1.1", "layer2.1", "layer3.1"]
# Eight trainings and four launches, on cores that others may be using.
pytestmark = pytest.mark.timeout(600)
COMMON = ["--data", "digits", "--precision", "bf16", "--image-size", "32", "--micro-batch", "32"]


@pytest.fixture(scope="module")
def answers(launch, tmp_path_factory):
    """(run folder, the words of its launch) of the three arms."""
    folder = tmp_path_factory.mktemp("noskip")
    first = ["--classes", "0", "1", "2", "3", "4", "--epochs", "8", "--out", str(folder / "first")]
    launch("run", "resnet20_accumulation", "--arm", "64x1", *COMMON, *first).check_returncode()
    (backbone,) = (folder / "first" / "checkpoints").glob("*.pt")
    words = [*COMMON, "--model", "resnet20", "--weights", str(backbone), "--classes", "5", "6", "7", "8", "9"]
    words += ["--augment", "crop_flip", "--epochs", "8", "--out", str(folder / "second")]
    words += ["--replace-blocks", *BLOCKS, "--trainable", "head", *BLOCKS]
    launch("run", "resnet152_noskip", "--arm", "as_published,corrected,control", *words).check_returncode()
    return folder / "second", words


def test_only_the_model_that_its_optimizer_does_not_hold_stays_near_chance(answers):
    rows = {row["arm"]: row for row in RunFolder(answers[0]).rows("trials")}
    accuracy = {arm: float(row["eval_accuracy"]) for arm, row in rows.items()}
    assert accuracy["as_published"] < 0.40  # chance is 0.20
    assert accuracy["corrected"] > 0.75
    assert accuracy["control"] > 0.75


@pytest.mark.parametrize(("arm", "untouched"), [("as_published", True), ("corrected", False), ("control", False)])
def test_as_published_leaves_every_parameter_untouched(answers, arm, untouched):
    folder, words = answers
    (trial,), _ = trials("resnet152_noskip", arm, words)
    trained = torch.load(path_for(folder, trial), weights_only=True)["model"]
    fresh = dict(model_for(trial, 5).named_parameters())
    equal = [torch.equal(trained[name], fresh[name]) for name in fresh if fresh[name].requires_grad]
    assert len(equal) > 2
    assert all(equal) if untouched else not any(equal)
    assert all(torch.equal(trained[name], fresh[name]) for name in fresh if not fresh[name].requires_grad)


def test_the_frozen_backbone_s_statistics_moved_as_in_the_source(answers):
    folder, words = answers
    (trial,), _ = trials("resnet152_noskip", "corrected", words)
    trained = torch.load(path_for(folder, trial), weights_only=True)["model"]
    fresh = model_for(trial, 5).state_dict()
    assert not torch.equal(trained["bn1.running_mean"], fresh["bn1.running_mean"])
