"""From a command line to trials: every combination that was asked for, each once, and nothing else."""

import itertools

import pytest

from bench import experiments
from bench.errors import UsageError
from launch.sweep.matrix import trials
from launch.sweep.option_words import axes

NAME = "resnet20_accumulation"
ARMS = list(experiments.load(NAME).arms)


def swept(*words: str, arms: str | None = "16x8") -> list:
    return trials(NAME, arms, words)[0]


def test_axes_multiply_and_arms_are_outermost() -> None:
    found = swept("--processes", "1,2", "--precision", "no,bf16", arms="16x8,128x1")
    expected = itertools.product(["16x8", "128x1"], [1, 2], ["no", "bf16"])
    assert [(trial.arm, trial.processes, trial.precision) for trial in found] == list(expected)


def test_what_no_axis_names_is_the_arms_own() -> None:
    experiment = experiments.load(NAME)
    for trial in swept("--seed", "3", arms="16x4,256x1"):
        assert trial.settings() == experiment.trial(NAME, trial.arm).settings() | {"seed": 3}


def test_all_arms_run_unless_some_are_named() -> None:
    assert [trial.arm for trial in swept(arms=None)] == ARMS


def test_each_trial_is_there_once() -> None:
    assert len(swept("--seed", "0,1,0", "--micro-batch", "16,16")) == 2
    assert len(swept(arms="16x8,16x8")) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--micro-batch", "8,16"],
        ["--micro-batch=8,16"],
        ["--micro_batch", "8,16"],
        ["--micro_batch=8,16"],
    ],
    ids=" ".join,
)
def test_an_axis_may_be_spelled_in_four_ways(words: list[str]) -> None:
    assert [trial.micro_batch for trial in swept(*words)] == [8, 16]
    assert axes(words) == ["micro_batch"]


def test_a_field_that_is_a_list_is_taken_whole() -> None:
    (trial,) = swept("--classes", "0", "1", "2", "--milestones", "0.5", "0.75", "--head", "64")
    assert (trial.classes, trial.milestones, trial.head) == ((0, 1, 2), (0.5, 0.75), (64,))


def test_a_list_can_be_emptied() -> None:
    assert experiments.load(NAME).base.milestones
    assert [trial.milestones for trial in swept("--milestones", "--seed", "1,2")] == [(), ()]


def test_switches_and_nothing_are_values_like_others() -> None:
    found = swept("--replaced-skip", "True,False", "--limit-train", "None,128")
    expected = [(True, None), (True, 128), (False, None), (False, 128)]
    assert [(trial.replaced_skip, trial.limit_train) for trial in found] == expected


def test_options_of_the_command_reach_it_and_are_no_axes() -> None:
    words = ["--out", "runs/a,b", "--resume", "--no-checkpoint", "--seed", "1,2"]
    found, options = trials(NAME, "16x8", words)
    assert len(found) == 2
    assert (str(options.out), options.resume, options.checkpoint) == ("runs/a,b", True, False)
    assert axes(words) == ["seed"]


def test_only_fields_with_several_values_are_axes() -> None:
    assert axes(["--seed", "1,2", "--epochs", "3", "--classes", "0", "1", "--lr=0.1,0.2"]) == ["seed", "lr"]


@pytest.mark.parametrize(
    ("arms", "words", "said"),
    [
        ("16x9", [], "'16x9'"),
        ("16x8,", [], "''"),
        ("", [], "''"),
        ("16x8", ["--no-such", "1,2"], "--no-such"),
        ("16x8", ["stray"], "stray"),
        ("16x8", ["--seed", "1,"], "'1,'"),
        ("16x8", ["--seed", ","], "','"),
        ("16x8", ["--seed", "1,x"], "'x'"),
        ("16x8", ["--seed", "1", "2"], "2"),
        ("16x8", ["--precision", "no,int8"], "int8"),
        ("16x8", ["--micro-batch", "16,0"], "--micro-batch is 0"),
        ("16x8", ["--experiment", "other"], "--experiment"),
    ],
)
def test_what_cannot_be_is_named_in_one_line(arms: str, words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        trials(NAME, arms, words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_experiment_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        trials("resnt20", None, [])
    assert all(name in str(caught.value) for name in ("'resnt20'", *experiments.names()))
