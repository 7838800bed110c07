"""Plans within a limit: what reaches the effective batch, what fits, which is chosen, and what is said and written."""

import csv
import dataclasses
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT, Launch
from launching import SMALL, Command, is_one_error, python, until

from bench import experiments
from bench.errors import UsageError
from bench.machine import environment
from bench.memory.prediction import predict
from bench.trial import Trial
from launch.group.accelerate_command import gpu_count
from launch.memory import devices, helpers, plan

MIB = 2**20
PLAN = ["-m", "launch", "plan", "resnet20_accumulation", "--model", "resnet8", "--data", "synthetic"]
RESNET8 = Trial(model="resnet8", data="synthetic")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No footprint is kept from another test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def cpu(limit: int) -> devices.Budget:
    return devices.budget(str(limit), cpu=True)


def plans(limit: int, *trials: Trial, effective_batch: int = 64) -> list[plan.Plan]:
    return plan.plans(trials or (RESNET8,), effective_batch, cpu(limit))


@pytest.mark.parametrize(
    ("effective_batch", "processes", "expected"),
    [
        (8, 1, [(8, 1), (4, 2), (2, 4)]),
        (12, 2, [(6, 1), (3, 2), (2, 3)]),
        (7, 1, [(7, 1)]),
        (3, 3, [(1, 1)]),
    ],
)
def test_every_way_to_the_effective_batch(
    effective_batch: int, processes: int, expected: list[tuple[int, int]]
) -> None:
    assert list(plan.splits(effective_batch, processes)) == expected


@pytest.mark.parametrize(("effective_batch", "near"), [(255, "254 or 256"), (1, "2")])
def test_an_effective_batch_that_cannot_be_shared_is_told_with_the_nearest(effective_batch: int, near: str) -> None:
    with pytest.raises(UsageError, match=f"by 2 processes; give {near}$"):
        list(plan.splits(effective_batch, 2))


def test_a_plan_s_figures_are_those_of_its_own_trace() -> None:
    for each in plans(2**30, effective_batch=32):
        trial = dataclasses.replace(RESNET8, micro_batch=each.trial.micro_batch, accumulate=each.trial.accumulate)
        traced = predict(trial, "cpu")
        assert each.footprint.allocated_bytes == traced.allocated_bytes
        assert each.footprint.parts == traced.parts


def test_the_fewest_passes_that_fit_are_chosen_and_why_is_said() -> None:
    everything = plans(2**30)
    third = everything[2]
    found = plans(third.footprint.limited_bytes)
    assert [each.fits for each in found[:4]] == ["no", "no", "yes", "yes"]
    assert [each.label() for each in found if each.chosen] == ["16x4"]
    assert found[2].why == "4 passes per step, the fewest that fit; 0% of the limit to spare"
    assert not any(each.why for each in found if not each.chosen)


def test_a_precision_that_needs_fewer_passes_wins_and_at_equal_passes_the_one_named_first() -> None:
    both = [dataclasses.replace(RESNET8, precision=precision) for precision in ("no", "bf16")]
    roomy = plans(2**30, *both, effective_batch=512)
    assert [(each.trial.precision, each.label()) for each in roomy if each.chosen] == [("no", "512x1")]
    full = max(each.footprint.limited_bytes for each in roomy)
    scarce = plans(full - 1, *both, effective_batch=512)
    assert [(each.trial.precision, each.label()) for each in scarce if each.chosen] == [("bf16", "512x1")]


def test_arms_that_take_the_same_memory_are_one_and_others_are_not() -> None:
    arms = experiments.load("resnet20_accumulation")
    trials = [arms.trial("resnet20_accumulation", arm) for arm in ("16x4", "256x1", "16x1_scaled")]
    trials.append(dataclasses.replace(trials[0], arm="plain", momentum=0.0))
    assert {each.arms for each in plans(2**30, *trials)} == {("16x4", "256x1", "16x1_scaled"), ("plain",)}


def test_dropout_takes_the_same_memory_at_each_rate_but_0() -> None:
    arms = experiments.load("dropout")
    trials = [arms.trial("dropout", arm) for arm in arms.arms]
    assert len({plan.alike(trial) for trial in trials}) == 2
    rates = [dataclasses.replace(RESNET8, head=(8, 8), dropout=each) for each in ((0.1, 0.9), (0.3, 0.2), (0.3, 0.0))]
    assert plan.alike(rates[0]) == plan.alike(rates[1]) != plan.alike(rates[2])
    one, two = (predict(rate, "cuda", last_window=False) for rate in rates[:2])
    assert (one.sizes, one.order) == (two.sizes, two.order)


def test_what_fits_only_by_giving_cached_memory_back_is_tight_and_not_chosen_where_another_fits() -> None:
    budget = devices.budget("1GiB")
    roomy = plan.plans((RESNET8,), 512, budget)
    first = roomy[0]
    assert first.footprint.reserved_bytes is not None
    found = plan.plans((RESNET8,), 512, dataclasses.replace(budget, bytes=first.footprint.reserved_bytes - 1))
    assert found[0].fits == "tight"
    assert [each.label() for each in found if each.chosen] == ["256x2"]


def recomputing(limit: int, *trials: Trial, effective_batch: int = 64) -> list[plan.Plan]:
    return plan.plans(trials or (RESNET8,), effective_batch, cpu(limit), recompute=True)


def test_blocks_are_recomputed_where_that_allows_a_larger_micro_batch_and_nowhere_else() -> None:
    everything = plans(2**30)
    assert not any(each.recomputes() for each in recomputing(2**30))  # all images fit at once
    found = recomputing(everything[1].footprint.limited_bytes - 1)
    assert [(each.label(), each.recomputed(), each.fits) for each in found] == [
        ("64x1", "", "no"),
        ("32x2", "", "no"),
        ("32x2", "blocks", "yes"),
        ("16x4", "", "yes"),
        ("8x8", "", "yes"),
        ("4x16", "", "yes"),
        ("2x32", "", "yes"),
    ]
    recomputed = found[2]
    traced = predict(dataclasses.replace(recomputed.trial, memory_limit_bytes=None), "cpu")
    assert recomputed.footprint.allocated_bytes == traced.allocated_bytes
    assert recomputed.footprint.parts == traced.parts
    # What keeps its activations is chosen, and measured beside its rival.
    assert [each.described() for each in found if each.chosen] == ["16x4, no"]
    assert found[3].why.startswith("4 passes per step, the fewest that fit without recomputing; ")
    assert [each.described() for each in plan.neighbours(found)] == [
        "32x2, no",
        "16x4, no",
        "8x8, no",
        "32x2, no, blocks recomputed",
    ]


def test_where_nothing_else_fits_what_recomputes_is_chosen() -> None:
    least = min(each.footprint.limited_bytes for each in plans(2**30, effective_batch=64))
    found = recomputing(least - 1)
    assert [each.described() for each in found if each.chosen] == ["2x32, no, blocks recomputed"]
    assert plan.neighbours(found) == [each for each in found if each.chosen]


def test_of_a_frozen_network_nothing_is_recomputed() -> None:
    frozen = dataclasses.replace(RESNET8, trainable=("head",))
    found = recomputing(2 * MIB, frozen)
    assert {each.fits for each in found} == {"no"}
    assert not any(each.recomputes() for each in found)


def test_where_nothing_fits_nothing_is_chosen() -> None:
    assert not any(each.chosen for each in plans(MIB))


def test_a_limit_below_the_weights_is_told_with_them() -> None:
    with pytest.raises(UsageError, match=r"the weights of resnet50 alone take 9\d+ bytes, more than the limit of "):
        plans(MIB, dataclasses.replace(RESNET8, model="resnet50", image_size=64))


def test_the_orin_s_story_holds() -> None:
    """ResNet-20's 64 images fit many times over, ResNet-50's do not and its 16 do; the arms are the plans chosen."""
    experiment = experiments.load("orin_batch_limit")
    budget = devices.budget("orin-nano-8gb")
    trials = [experiment.trial("orin_batch_limit", arm) for arm in ("resnet20_64", "resnet50_64")]
    found = plan.plans(trials, 256, budget)
    fits = {(each.trial.model, each.trial.micro_batch): each.fits for each in found}
    assert fits["resnet20", 64] == fits["resnet50", 16] == "yes"
    assert fits["resnet50", 64] == "no"
    assert next(each for each in found if each.label() == "64x4").footprint.limited_bytes < budget.bytes / 10
    chosen = {each.trial.model: (each.trial.micro_batch, each.trial.accumulate) for each in found if each.chosen}
    for model, way in chosen.items():
        planned = experiment.trial("orin_batch_limit", f"{model}_planned")
        assert (planned.model, (planned.micro_batch, planned.accumulate)) == (model, way)
    told: dict[str, list[float]] = {"ResNet-20": [], "ResNet-50": []}
    for line in (CHECKOUT / "docs" / "memory.md").read_text().splitlines():
        if line.startswith("| ResNet-"):
            told[line[2:11]] = [float(number) for number in re.findall(r"\b\d+\.\d+\b", line)]
    for model, numbers in told.items():
        mine = [each for each in found if each.trial.model == model.lower().replace("-", "")]
        sizes = {each.trial.micro_batch: each.footprint.limited_bytes / 2**30 for each in mine}
        best = next(each for each in mine if each.chosen)
        assert numbers == pytest.approx([sizes[64], sizes[16], best.footprint.limited_bytes / 2**30], rel=0.02)


def test_neighbours_are_the_next_micro_batches_of_the_chosen_plan() -> None:
    found = plans(2**30)
    found[0].chosen, found[2].chosen = False, True
    assert [each.label() for each in plan.neighbours(found)] == ["32x2", "16x4", "8x8"]
    assert plan.neighbours([dataclasses.replace(each, chosen=False) for each in found]) == []


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "plan.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_prints_a_table_and_writes_every_plan(tmp_path: Path) -> None:
    words = [*PLAN, "--effective-batch", "16", "--memory-limit", "orin-nano-8gb", "--precision", "no,bf16"]
    (tmp_path / "plan.csv").write_text("an earlier plan's\n")
    done = python(*words, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "resnet20_accumulation, all: effective batch 16" in done.stdout
    assert "choose 16x1, no: one pass per step" in done.stdout
    assert "orin-nano-8gb: 7.30 GiB visible" in done.stdout
    found = rows(tmp_path)
    assert [(row["precision"], row["micro_batch"], row["accumulate"]) for row in found] == [
        (precision, str(micro_batch), str(16 // micro_batch))
        for precision in ("no", "bf16")
        for micro_batch in (16, 8, 4, 2)
    ]
    for row in found:
        parts = sum(
            int(row[name]) for name in row if name.endswith("_bytes") and name.partition("_")[0] not in NOT_PARTS
        )
        assert parts == int(row["predicted_allocated_bytes"]) <= int(row["predicted_reserved_bytes"])


NOT_PARTS = ("limit", "predicted", "peak", "base")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "plan: the following arguments are required: --effective-batch, --memory-limit; see "),
        (["--effective-batch", "many"], "--effective-batch: 'many' is no whole number from 1 on"),
        (["--effective-batch", "256"], "plan: the following arguments are required: --memory-limit; see "),
        (["--effective-batch", "256", "--memory-limit", "orin-nan-8gb"], "orin-nano-8gb"),
        (["--effective-batch", "256", "--memory-limit", "1GiB", "--micro-batch", "8"], "leave --micro-batch out"),
        (["--effective-batch", "256", "--memory-limit", "1GiB", "--compile", "default"], "--compile"),
        (["--effective-batch", "256", "--memory-limit", "1GiB", "--arm", "8x8"], "no arm '8x8'"),
        (["--effective-batch", "8", "--memory-limit", "1GiB", "--processes", "1,2"], "not of --processes"),
        (["--effective-batch", "8", "--memory-limit", "1GiB", "--memory-limit-bytes", "5"], "give one of them"),
        (["--effective-batch", "8", "--memory-limit", "1GiB", "--limit-train", "7"], "more than the 7 training images"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence_and_leaves_nothing(words: list[str], said: str, tmp_path: Path) -> None:
    done = python(*PLAN, *words, "--out", str(tmp_path / "runs"))
    assert is_one_error(done), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(gpu_count() > 0, reason="this machine has a GPU")
def test_a_gpu_s_plan_is_not_measured_on_a_cpu(tmp_path: Path) -> None:
    done = python(
        *PLAN, "--effective-batch", "8", "--memory-limit", "1GiB", "--measure", "--out", str(tmp_path / "runs")
    )
    assert is_one_error(done), done.stderr
    assert "plan with --device cpu" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_plan_at_once_and_leaves_no_process(number: int, tmp_path: Path) -> None:
    words = ["--effective-batch", "256", "--memory-limit", "1GiB", "--data", "synthetic", "--image-size", "224"]
    with Command([*PLAN[:4], "--model", "resnet152", *words, "--out", str(tmp_path / "runs")], tmp_path) as command:
        until(lambda: len(command.left()) >= 3, "the helpers")  # with what starts them
        if number == signal.SIGINT:
            command.interrupt()
        else:
            command.process.send_signal(number)
        assert command.wait(30) == 130
        until(lambda: command.left() == [], "nothing to be left", 10)
    assert command.stderr.read_text() == "interrupted: nothing had started\n"


def powered(base: int, power: int) -> tuple[int, int]:
    return base**power, os.getpid()


def test_many_small_tasks_are_done_by_forks_in_order() -> None:
    found = helpers.side_by_side(powered, [(number, 2) for number in range(helpers.WORTHWHILE)])
    assert [square for square, _ in found] == [number**2 for number in range(helpers.WORTHWHILE)]
    assert environment.cpu_count() == 1 or os.getpid() not in {pid for _, pid in found}
    assert helpers.side_by_side(powered, [(3, 2)]) == [(9, os.getpid())]  # one is not worth a fork
    with pytest.raises(TypeError):
        helpers.side_by_side(powered, [("no number", 2)] * helpers.WORTHWHILE)


def test_what_recomputes_stands_beside_what_does_not_and_is_named_as_its_rival(tmp_path: Path) -> None:
    words = [*PLAN, "--effective-batch", "64", "--device", "cpu", "--out", str(tmp_path)]
    done = python(*words, "--memory-limit", "53MiB")  # 56 for 32 images, 51 with their blocks recomputed
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["plan", "precision", "recomputed", "GiB"] in [line[:4] for line in lines]
    assert [line[:3] for line in lines if line[:1] == ["32x2"]][1] == ["32x2", "no", "blocks"]
    assert "\nor 32x2, no, blocks recomputed: 2 passes instead of 4, in which the blocks'" in done.stdout
    assert [row["checkpoint_activations"] for row in rows(tmp_path)].count("block") == 1
    given = python(*words, "--memory-limit", "1GiB", "--checkpoint-activations", "block,stage")
    assert given.returncode == 0, given.stderr
    assert [row["checkpoint_activations"] for row in rows(tmp_path)] == ["block", "stage"] * 6
    assert "choose 64x1, no, blocks recomputed: one pass per step" in given.stdout


def test_no_plan_that_fits_is_exit_code_1(tmp_path: Path) -> None:
    done = python(*PLAN, "--effective-batch", "64", "--memory-limit", "9MiB", "--out", str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "none fits: 2x32, no needs " in done.stdout


def test_measured_stands_beside_predicted(launch: Launch, tmp_path: Path) -> None:
    more: list[Any] = ["--effective-batch", "4", "--memory-limit", "400MiB", "--device", "cpu", "--measure"]
    done = launch("plan", "resnet20_accumulation", *SMALL, *more, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path)
    assert [row["status"] for row in found] == ["ok", "ok"]
    assert all(float(row["images_per_s"]) > 0 for row in found[:2])
    for row in found[:2]:
        grew = int(row["peak_rss_bytes"]) - int(row["base_rss_bytes"])
        assert 0 < grew < 400 * MIB
        assert f"{plan.gib(grew)} " in done.stdout
