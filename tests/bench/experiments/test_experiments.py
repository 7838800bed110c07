"""The experiments: each is short, has a miniature that needs no download, and its arms stay apart in it."""

from pathlib import Path

import pytest

from bench import experiments
from bench.errors import UsageError
from bench.training.build import model_for
from launch.commands import list as catalogue
from models.surgery import total_parameters, trainable_parameters

CHECKOUT = Path(__file__).parents[3]
NAMES = experiments.names()


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_data_on_less_than_a_page(name: str) -> None:
    assert len((CHECKOUT / "bench/experiments" / f"{name}.py").read_text().splitlines()) < 80


@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_needs_nothing_but_the_package(name: str) -> None:
    experiment = experiments.load(name)
    trials = {arm: experiment.trial(name, arm, "mini") for arm in experiment.arms}
    for trial in trials.values():
        assert (trial.data, trial.weights, trial.evaluate_on) == ("digits", "none", "none")
        assert trial.image_size <= 64
        assert trial.epochs <= 10
    assert set(experiment.mini_arms) | set(experiment.published) | set(experiment.shared_batch) <= set(trials)


@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_keeps_what_its_arms_differ_in(name: str) -> None:
    """But for weights, which it has none of, and sizes."""
    experiment = experiments.load(name)
    for arm, changes in experiment.arms.items():
        trial = experiment.trial(name, arm, "mini").settings()
        lost = {key for key, value in changes.items() if trial[key] != value}
        assert lost <= {"weights", "image_size"}, arm


@pytest.mark.parametrize("name", NAMES)
def test_the_full_preset_is_the_arm(name: str) -> None:
    experiment = experiments.load(name)
    for arm, changes in experiment.arms.items():
        trial = experiment.trial(name, arm).settings()
        expected = {**experiment.base.settings(), "experiment": name, "arm": arm, **changes}
        assert trial == expected


def test_an_unknown_preset() -> None:
    with pytest.raises(UsageError, match="no preset 'tiny'; choose from: full, mini"):
        experiments.load("process_scaling").trial("process_scaling", "resnet20_weak", "tiny")


@pytest.mark.parametrize(
    ("arm", "head"),
    [
        ("config1", "512-128 ReLU 0.3 128-10"),
        ("config2", "512-256 ReLU 0.2 256-128 ReLU 0.2 128-128 ReLU 0.2 128-64 ReLU 0.2 64-32 ReLU 32-10"),
    ],
)
def test_the_frozen_resnet18s_train_layer4_and_the_printed_head(arm: str, head: str) -> None:
    trial = experiments.load("resnet18_transfer").trial("resnet18_transfer", arm, "mini")
    model = model_for(trial, 10)
    said = []
    fc = model.get_submodule("fc")
    for layer in fc.children():
        size = f"{layer.in_features}-{layer.out_features}" if hasattr(layer, "in_features") else getattr(layer, "p", "")
        said.append(str(size or type(layer).__name__))
    assert " ".join(said) == head
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"layer4", "fc"}
    layer4 = 9 * (256 * 512 + 3 * 512 * 512) + 256 * 512 + 5 * 2 * 512
    assert trainable_parameters(model) - total_parameters(fc) == layer4


def test_plain_and_residual_networks_of_a_depth_have_the_same_parameters() -> None:
    experiment = experiments.load("resnet_depth")
    counts = {
        arm: trainable_parameters(model_for(experiment.trial("resnet_depth", arm), 10)) for arm in experiment.arms
    }
    for depth, millions in ((20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)):
        assert counts[f"plain_{depth}"] == counts[f"residual_{depth}"]
        assert round(counts[f"plain_{depth}"] / 1e6, 2) == millions  # He et al. 2015, table 6


def test_the_docs_have_the_table_of_all_experiments() -> None:
    assert catalogue.markdown() in (CHECKOUT / "docs" / "experiments.md").read_text()
