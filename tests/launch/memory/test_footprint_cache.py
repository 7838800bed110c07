"""Kept footprints: the same plan without a trace, and a trace where anything that it depends on has changed."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from launching import python

from bench.memory.footprint import Footprint
from bench.memory.prediction import limits_alike, predict
from bench.trial import Trial
from launch.memory import devices, footprint_cache, plan
from launch.memory.footprint_cache import Prediction

TRIAL = Trial(model="resnet8", data="synthetic")
BUDGET = devices.budget("1GiB")
KEPT = Footprint("cuda", (3, 4, 5), ("weights", "input", "activations"), (1, 2, -2, 3))
ANY = (0, None)  # limits


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and code and versions that are read anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for known in (footprint_cache._code, footprint_cache._versions):
        known.cache_clear()
    return tmp_path / "cache" / "resbench" / "footprints"


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """The trials that were traced, each of which gets a planted footprint."""
    asked: list[Trial] = []

    def trace(jobs: Sequence[Trial], budget: devices.Budget) -> list[Prediction]:
        asked.extend(jobs)
        footprints = [dataclasses.replace(KEPT, sizes=(3, 4, job.micro_batch)) for job in jobs]
        limits = [limits_alike(job) for job in jobs]
        return [Prediction(footprint, 1000, alike) for footprint, alike in zip(footprints, limits, strict=True)]

    monkeypatch.setattr(plan, "predict_all", trace)
    return asked


def key(trial: Trial = TRIAL, budget: devices.Budget = BUDGET) -> str:
    for known in (footprint_cache._code, footprint_cache._versions):
        known.cache_clear()
    return footprint_cache.path_for(trial, budget).name


def test_a_plan_of_the_same_model_traces_nothing_whatever_is_asked_of_it(traced: list[Trial], cache: Path) -> None:
    first = plan.plans([TRIAL], 64, BUDGET)
    assert len(traced) == 4
    again = plan.plans([dataclasses.replace(TRIAL, experiment="other", lr=0.3)], 32, BUDGET)
    assert len(traced) == 4
    assert [each.footprint.sizes for each in again] == [each.footprint.sizes for each in first[1:]]
    plan.plans([dataclasses.replace(TRIAL, precision="bf16")], 64, BUDGET)
    assert len(traced) == 8
    assert len(list(cache.iterdir())) == 8


def test_a_cold_plan_traces_what_takes_other_memory_and_recomputation_where_it_can_help(traced: list[Trial]) -> None:
    arms = [dataclasses.replace(TRIAL, arm=f"lr_{lr}", lr=lr) for lr in (0.1, 0.2, 0.3)]
    plan.plans(arms, 64, BUDGET, recompute=True)
    two_by_two = [(2, 1), (2, 2), (4, 1), (4, 2)]
    assert [(each.micro_batch, each.accumulate) for each in traced] == two_by_two
    traced.clear()
    plan.plans(arms, 64, dataclasses.replace(BUDGET, bytes=2**20), recompute=True)  # nothing fits
    assert {each.checkpoint_activations for each in traced} == {"block"}
    assert [(each.micro_batch, each.accumulate) for each in traced] == two_by_two


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    for limits in (ANY, (0, 9), (9, None)):
        footprint_cache.write(tmp_path / "a.json", Prediction(KEPT, 77, limits))
        assert footprint_cache.read(tmp_path / "a.json") == (KEPT, 77, limits)


# Four times the bytes of CIFAR-10's images: from this limit on, "auto" keeps them on the device.
RESIDENT = 4 * 60_000 * 32 * 32 * 3


def test_another_limit_traces_nothing_unless_it_changes_where_the_images_are(traced: list[Trial]) -> None:
    images = dataclasses.replace(TRIAL, data="cifar10")

    def planned(trial: Trial, limit: int | None) -> int:
        traced.clear()
        plan.plans([dataclasses.replace(trial, memory_limit_bytes=limit)], 64, devices.budget("1GiB"))
        return len(traced)

    assert [planned(TRIAL, limit) for limit in (2**30, 1000, None)] == [4, 0, 0]
    assert [planned(images, limit) for limit in (2**31, 2**40, RESIDENT, None)] == [4, 0, 0, 0]
    assert [planned(images, limit) for limit in (RESIDENT - 1, 1000, RESIDENT)] == [4, 0, 4]


def test_another_limit_is_another_trace_where_it_decides_where_features_are_kept(traced: list[Trial]) -> None:
    once = dataclasses.replace(TRIAL, features="once", batch_norm="eval", trainable=("head",), augment="none")
    seen = []
    for limit in (2**30, 2**20, 2**30):
        traced.clear()
        plan.plans([dataclasses.replace(once, memory_limit_bytes=limit)], 64, devices.budget("1GiB"))
        seen.append(len(traced) > 0)
    assert seen == [True, True, False]


@pytest.mark.parametrize("pipeline", ["auto", "loader"])
def test_a_trace_is_the_same_under_limits_that_are_said_to_be_alike_and_another_under_others(pipeline: Any) -> None:
    images = dataclasses.replace(TRIAL, data="cifar10", pipeline=pipeline, micro_batch=2)
    found: dict[tuple[int, int | None], list[Footprint]] = {}
    for limit in (1000, RESIDENT - 1, RESIDENT, None):
        trial = dataclasses.replace(images, memory_limit_bytes=limit)
        found.setdefault(limits_alike(trial), []).append(predict(trial, last_window=False))
    assert set(found) == ({(0, RESIDENT), (RESIDENT, None)} if pipeline == "auto" else {ANY})
    assert all(each == same[0] for same in found.values() for each in same)
    assert len({each.allocated_bytes for same in found.values() for each in same}) == len(found)


@pytest.mark.parametrize("content", ["", "half", "{}", '{"footprint": {}}', "spoilt"])
def test_a_damaged_file_is_traced_again_and_replaced(content: str, traced: list[Trial], cache: Path) -> None:
    plan.plans([TRIAL], 64, BUDGET)
    files = sorted(cache.iterdir())
    whole = files[0].read_text()
    if content == "spoilt":  # a digit of a size, as a failing disk would
        content = whole.replace('"sizes": [3,', '"sizes": [9,')
        assert content != whole
    elif content == "half":
        content = whole[: len(whole) // 2]
    files[0].write_text(content)
    plan.plans([TRIAL], 64, BUDGET)
    assert len(traced) == 5
    assert files[0].read_text() == whole


def test_a_key_changes_with_settings_device_code_versions_and_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "models").mkdir(parents=True)
    (checkout / "models" / "net.py").write_text("one\n")
    monkeypatch.setattr("bench.machine.environment.CHECKOUT", checkout)
    found = [key(), key(dataclasses.replace(TRIAL, model="resnet20")), key(budget=devices.budget("1GiB", cpu=True))]
    found.append(key(budget=dataclasses.replace(BUDGET, capability=(8, 7))))
    (checkout / "models" / "net.py").write_text("two\n")
    found.append(key())
    for name in ("bench/memory/trace.py", "launch/memory/plan.py"):
        (checkout / name).parent.mkdir(parents=True)
        (checkout / name).write_text("new\n")
        found.append(key())
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    found.append(key())
    monkeypatch.setattr("bench.machine.environment.version", lambda package: f"{package} 9")
    found += [key(), key()]
    assert len(set(found)) == len(found) - 1
    assert found[-1] == found[-2]


def test_what_depends_on_free_memory_is_traced_each_time(traced: list[Trial]) -> None:
    cpu = devices.budget("1GiB", cpu=True)
    trial = dataclasses.replace(TRIAL, data="cifar10")
    assert [footprint_cache.is_kept(trial, each) for each in (cpu, BUDGET)] == [False, True]
    assert footprint_cache.is_kept(dataclasses.replace(trial, pipeline="resident"), cpu)
    for _ in range(2):
        plan.plans([trial], 64, cpu)
    assert len(traced) == 8


@pytest.mark.parametrize("there", ["a file", "no permission"])
def test_a_folder_that_cannot_be_written_is_no_error(there: str, traced: list[Trial], tmp_path: Path) -> None:
    if there == "a file":
        (tmp_path / "cache").write_text("")
    else:
        (tmp_path / "cache").mkdir(mode=0o500)
    for _ in range(2):
        assert plan.plans([TRIAL], 64, BUDGET)
    assert len(traced) == (4 if there == "no permission" and os.geteuid() == 0 else 8)


def test_no_more_are_kept_than_there_is_room_for_and_the_new_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint_cache, "MOST", 2)
    for name in "abcd":
        footprint_cache.write(tmp_path / f"{name}.json", Prediction(KEPT, 1, ANY))
        kept = {path.stem for path in tmp_path.glob("*.json")}
        assert len(kept) == min(2, "abcd".index(name) + 1)
        assert name in kept


def test_a_plan_from_the_cache_imports_no_torch(cache: Path, tmp_path: Path) -> None:
    """Python lists what it imports. The footprints are planted under the keys that the command asks for."""
    words: list[Any] = ["-m", "launch", "plan", "resnet20_accumulation", "--arm", "16x1", "--effective-batch", "16"]
    words += ["--memory-limit", "1GiB", "--data", "synthetic", "--out", str(tmp_path)]
    experiment = "resnet20_accumulation"
    from bench import experiments

    trial = plan.alike(experiments.load(experiment).trial(experiment, "16x1"))
    trial = dataclasses.replace(trial, data="synthetic", memory_limit_bytes=2**30)
    for accumulate in (1, 2):
        for batch in plan.TRACED:
            job = dataclasses.replace(trial, accumulate=accumulate, micro_batch=batch)
            sizes = (3 * 2**20, 4 * 2**20, batch * 2**20)
            planted = Prediction(dataclasses.replace(KEPT, sizes=sizes), 1000, ANY)
            footprint_cache.write(footprint_cache.path_for(job, BUDGET), planted)
    done = python(*words, env={"PYTHONPROFILEIMPORTTIME": "1", "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]})
    assert done.returncode == 0, done.stderr
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "launch.memory.footprint_cache" in modules
    assert not {"torch", "torchvision", "accelerate", "sklearn"} & modules
    with open(tmp_path / "plan.csv") as file:
        rows = list(csv.DictReader(file))
    # 3 MiB and 16, in a segment of 20 MiB, of which a last one is not cut off.
    assert rows[0]["predicted_allocated_bytes"] == str(20 * 2**20)
