"""From words to the trials in the order in which they run, and all that the runner is told besides."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
from launching import python

from bench import experiments
from bench.errors import UsageError
from bench.fields import texts
from bench.trial import FIXED, Trial, option
from launch import run_options
from launch.sweep import checks, request
from launch.sweep.request import RunRequest, read

NAME = "resnet20_accumulation"
ARMS = list(experiments.load(NAME).arms)
FROZEN = list(experiments.load("resnet152_frozen").arms)


def order(asked: RunRequest) -> list[tuple[str, int]]:
    return [(trial.arm, trial.repeat) for trial in asked.trials]


def test_a_study_of_two_experiments_is_the_product_of_all_its_axes() -> None:
    words = [NAME, "orin_batch_limit", "--arm", "16x8,64x2,128x1,resnet20_64,resnet20_16,resnet50_16"]
    asked = read([*words, "--precision", "no,bf16", "--repeats", "2"])
    assert len(set(asked.trials)) == len(asked.trials) == 2 * 3 * 2 * 2
    assert {(trial.experiment, trial.arm) for trial in asked.trials} == {
        *((NAME, arm) for arm in ("16x8", "64x2", "128x1")),
        *(("orin_batch_limit", arm) for arm in ("resnet20_64", "resnet20_16", "resnet50_16")),
    }
    assert asked.axes == ["precision", "repeat"]


def test_without_arms_named_all_run_and_no_trial_runs_twice() -> None:
    asked = read([NAME, "resnet152_frozen", NAME])
    assert [trial.arm for trial in asked.trials] == [*ARMS, *FROZEN]


def test_repeats_are_interleaved_there_and_back() -> None:
    """A B C C B A A B C: a machine that grows slower evenly does so for all alike."""
    asked = read([NAME, "--arm", "16x1,16x4,16x8", "--repeats", "3"])
    names = ["16x1", "16x4", "16x8"]
    expected = [(arm, repeat) for repeat in range(3) for arm in (names[::-1] if repeat == 1 else names)]
    assert order(asked) == expected


def test_in_sequence_a_trial_has_all_its_repeats_first() -> None:
    asked = read([NAME, "--arm", "16x1,16x4", "--repeats", "2", "--order", "sequential"])
    assert order(asked) == list(itertools.product(["16x1", "16x4"], [0, 1]))


def test_repeats_of_a_trial_have_its_key() -> None:
    asked = read([NAME, "--arm", "16x1", "--repeats", "2"])
    assert len({trial.key() for trial in asked.trials}) == 1


def test_single_repeats_may_be_asked_for() -> None:
    assert order(read([NAME, "--arm", "16x1", "--repeat", "2,5"])) == [("16x1", 2), ("16x1", 5)]


@pytest.mark.parametrize("spelling", [["--stall-timeout", "5"], ["--stall_timeout", "5"], ["--stall_timeout=5"]])
def test_conduct_is_split_off_in_every_spelling(spelling: list[str]) -> None:
    asked = read([NAME, *spelling, "--seed", "1", "--fail-fast", "--classes", "0", "1", "--dry_run"])
    assert asked.run_options == run_options.RunOptions(stall_timeout=5, fail_fast=True, dry_run=True)
    assert asked.trials[0].classes == (0, 1)


@pytest.mark.parametrize("name", ["dry-run", "cold", "fail-fast", "retry-failed"])
def test_switches_work_bare(name: str) -> None:
    field = name.replace("-", "_")
    assert getattr(read([NAME, "--resume", f"--{name}"]).run_options, field) is True
    assert getattr(read([NAME, f"--no-{name}"]).run_options, field) is False


@pytest.mark.parametrize(
    "words", [["--stop-at-target"], ["--stop_at_target", "--seed", "1"], ["--stop-at-target=True"]]
)
def test_a_setting_that_is_on_or_off_works_bare_too(words: list[str]) -> None:
    asked = read([NAME, "--arm", "16x1", "--target-accuracy", "0.8,0.9", *words])
    assert [trial.stop_accuracy() for trial in asked.trials] == [0.8, 0.9]


def test_options_of_limits_reach_the_trials_in_any_spelling() -> None:
    asked = read([NAME, "--arm", "16x1", "--memory_limit=600MiB,1GiB", "--skip_over_limit", "--device", "cpu"])
    assert [trial.memory_limit_bytes for trial in asked.trials] == [600 * 2**20, 2**30]
    assert (asked.gpus, asked.skip_over_limit, asked.axes) == (0, True, ["memory_limit_bytes"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs an experiment or a study file"),
        (["--seed", "1"], "needs an experiment or a study file"),
        ([NAME, "studies/accumulation.toml"], "studies/accumulation.toml names its experiments itself"),
        (["studies/accumulation.toml", "studies/frozen_published.toml"], "give it alone"),
        (["resnt20"], "no experiment 'resnt20'"),
        ([NAME, "resnt20", "--arm", "16x8"], "no experiment 'resnt20'"),
        ([NAME, "resnet152_frozen", "--arm", "16x8,x"], "no arm 'x' in resnet20_accumulation or resnet152_frozen"),
        ([NAME, "resnet152_frozen", "--arm", "16x8,64x2"], "resnet152_frozen has no arm '16x8,64x2'"),
        ([NAME, "--arm", "16x8,"], "no arm ''"),
        ([NAME, "--precision"], "--precision has no value; choose from: no, bf16, fp16"),
        ([NAME, "--precision", "--seed", "1"], "--precision has no value; choose from: no, bf16, fp16"),
        ([NAME, "--precision", ","], "--precision has an empty value in ','"),
        ([NAME, "--precision", ""], "--precision is empty; choose from: no, bf16, fp16"),
        ([NAME, "--precision="], "--precision is empty; choose from: no, bf16, fp16"),
        (
            [NAME, "--target-accuracy", "0.8,0.9"],
            "--target-accuracy has several values, for which a trial trains alike",
        ),
        ([NAME, "--stop-at-target"], "--stop-at-target needs a target"),
        ([NAME, "--machines", "1,2"], "--machines takes one value"),
        ([NAME, "--seed", "1", "--seed=2"], "--seed is given twice"),
        ([NAME, "--cold", "--no-cold"], "--cold/--no-cold is given twice"),
        ([NAME, "--retry-failed"], "--retry-failed needs --resume"),
        ([NAME, "--repeats", "2", "--repeat", "0"], "leave --repeat out"),
        ([NAME, "--repeats", "0"], "--repeats is 0; give 1 or more"),
        ([NAME, "--repeats", "1,2"], "--repeats"),
        ([NAME, "--repeats"], "--repeats"),
        ([NAME, "--order", "random"], "'random'"),
        ([NAME, "--timeout", "soon"], "--timeout"),
        ([NAME, "--stall-timeout", "0"], "--stall-timeout is 0.0"),
        ([NAME, "--parallel", "0"], "--parallel is 0"),
        ([NAME, "--cold", "16"], "16"),
        ([NAME, "--dry-rn"], "no option '--dry-rn'; perhaps you meant --dry-run"),
        ([NAME, "--experiment", "x"], "no option '--experiment'"),
        ([NAME, "--"], "no option '--'"),
        ([NAME, "-x"], "no option '-x'"),
        ([NAME, "--device", "tpu"], "--device is 'tpu'"),
        ([NAME, "--epochs", "two"], "--epochs is 'two'; give a whole number"),
        ([NAME, "--micro-batch", "8,x"], "--micro-batch is 'x'; give a whole number"),
        ([NAME, "--limit-train=x"], "--limit-train is 'x'; give a whole number"),
        ([NAME, "--milestones", "0.5", "b"], "--milestones is 'b'; give a number"),
        ([NAME, "--timeout", "long"], "--timeout is 'long'; give a number"),
        ([NAME, "--precision", "fp8"], "--precision is 'fp8'; choose from: no, bf16, fp16"),
        ([NAME, "--tf32", "maybe"], "--tf32 is 'maybe'; choose from: True, False"),
        ([NAME, "--data", ""], "--data is empty; choose from: cifar10, digits, voc, synthetic, own, folder:PATH"),
        ([NAME, "--epochs", ""], "--epochs is empty; give a whole number"),
        ([NAME, "--arm", ""], "--arm is empty; choose from: 16x4, 64x1, "),
    ],
)
def test_what_cannot_be_is_named_in_one_line(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


SET_BY_LAUNCHER = {"repeat", "memory_limit_bytes"}  # by --repeats and --memory-limit


def test_help_all_lists_every_field_and_how_a_sweep_is_conducted() -> None:
    shown = python("-m", "launch", "run", NAME, "--help-all", env={"COLUMNS": "200"})
    assert shown.returncode == 0, shown.stderr
    wanted = {*(field.name for field in dataclasses.fields(Trial)), *run_options.FIELDS} - {*FIXED, "arm"}
    listed = {line.split()[0].rstrip(",") for line in shown.stdout.splitlines() if line.startswith("  --")}
    assert wanted - SET_BY_LAUNCHER == {name for name in wanted if option(name) in listed}
    assert all(arm in shown.stdout for arm in ARMS)
    assert texts(Trial)["accumulate"] in shown.stdout


def test_what_makes_no_other_trials_is_known() -> None:
    assert {"out", "resume", "timeout", "order"} <= request.TRIAL_NEUTRAL
    assert not {"repeats", "seed", "arm", "memory_limit"} & request.TRIAL_NEUTRAL


# Presets


def test_the_miniatures_of_all_experiments_are_asked_for_by_the_preset_alone() -> None:
    asked = read(["--preset", "mini"])
    assert asked.trials == [
        experiments.load(name).trial(name, arm, "mini")
        for name in experiments.names()
        for arm in experiments.load(name).arms
    ]


def test_options_go_over_a_preset() -> None:
    asked = read([NAME, "--preset", "mini", "--arm", "16x8", "--epochs", "3,4", "--micro-batch", "2"])
    expected = experiments.load(NAME).trial(NAME, "16x8", "mini")
    assert asked.trials == [dataclasses.replace(expected, epochs=epochs, micro_batch=2) for epochs in (3, 4)]
    assert read([NAME, "--preset", "full"]).trials == read([NAME]).trials


def test_a_study_file_can_ask_for_a_preset(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text('experiments = ["dropout"]\npreset = "mini"\n')
    asked = read([str(tmp_path / "study.toml")])
    assert asked.trials == read(["dropout", "--preset", "mini"]).trials
    assert read([str(tmp_path / "study.toml"), "--preset", "full"]).trials == read(["dropout"]).trials


def test_an_unknown_preset_is_named_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="no preset 'tiny'; choose from: full, mini"):
        read([NAME, "--preset", "tiny"])


def test_a_model_of_timm_s_is_refused_before_the_first_trial_where_timm_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = read(["resnet20_accumulation", "--arm", "16x1", "--model", "resnet20,timm/resnet50d", "--device", "cpu"])
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(UsageError, match=r"^timm/resnet50d needs timm, which is not installed; pip install timm"):
        checks.check(asked)
