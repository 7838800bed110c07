"""How long trials may take is said from rows of this machine, and not where there are none to go by."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Launch

from bench import experiments
from bench.machine import nvml
from bench.record.rows import first_row
from bench.record.run_folder import RunFolder
from bench.trial import Trial
from launch.group import accelerate_command
from launch.sweep import estimate, request
from launch.sweep.estimate import Estimator

NAME = "resnet20_accumulation"
BASE = experiments.load(NAME).trial(NAME, "16x8")


def row(trial: Trial, duration_s: float, **more: Any) -> dict[str, Any]:
    made = first_row(trial, experiments.load(NAME), "x")
    return {**made, "status": "ok", "duration_s": duration_s, "device_name": "cpu", **more}


def as_text(folder: Path, *rows: dict[str, Any]) -> list[dict[str, str]]:
    RunFolder(folder).append("trials", rows)
    return RunFolder(folder).rows("trials")


def changed(**settings: Any) -> Trial:
    return dataclasses.replace(BASE, **settings)


def test_a_trial_takes_the_median_of_its_own_rows_whatever_their_repeat() -> None:
    found = Estimator()
    for repeat, seconds in enumerate([10, 90, 20]):
        assert found.add(row(changed(repeat=repeat), seconds))
    assert found.seconds(changed(repeat=7)) == 20


def test_other_rows_count_in_proportion_to_the_epochs() -> None:
    found = Estimator()
    found.add(row(changed(epochs=10), 100))
    found.add(row(changed(epochs=10, seed=1), 140))
    assert found.seconds(changed(epochs=5, seed=2, lr=0.5, repeat=3, milestones=(0.5,))) == 60
    assert found.seconds(changed(epochs=10)) == 100


def test_a_trial_that_stopped_at_its_target_counts_the_epochs_that_it_trained() -> None:
    found = Estimator()
    stopped = changed(epochs=10, target_accuracy=0.9, stop_at_target=True)
    assert found.add(row(stopped, 40, epochs_trained=4))
    assert found.seconds(changed(epochs=10)) == 100
    assert found.seconds(dataclasses.replace(stopped, repeat=1)) == 40


@pytest.mark.parametrize(
    "other",
    [
        {"micro_batch": 32},
        {"accumulate": 4},
        {"precision": "bf16"},
        {"processes": 2},
        {"model": "resnet32"},
        {"data": "digits"},
        {"limit_windows": 3},
        {"trainable": ("head",)},
        {"memory_limit_bytes": 10**9},
        {"compile": "default"},
    ],
    ids=str,
)
def test_what_changes_an_epochs_time_is_not_estimated_by_it(other: dict[str, Any]) -> None:
    found = Estimator()
    found.add(row(BASE, 100))
    assert found.seconds(changed(**other)) is None


def test_arms_of_equal_settings_stand_for_one_another() -> None:
    found = Estimator()
    found.add(row(BASE, 50))
    assert found.seconds(changed(arm="other", epochs=100)) == 100


@pytest.mark.parametrize(
    "more",
    [
        {"status": "oom"},
        {"status": "interrupted"},
        {"resumed_at_epoch": 3},
        {"duration_s": None},
        {"duration_s": float("nan")},
        {"duration_s": float("inf")},
        {"duration_s": 0},
    ],
    ids=str,
)
def test_only_whole_launches_that_ended_well_count(tmp_path: Path, more: dict[str, Any]) -> None:
    planted = {**row(BASE, 100), **more}
    assert not Estimator().add(planted)
    assert not Estimator().add(as_text(tmp_path, planted)[0])


def test_rows_as_text_say_the_same(tmp_path: Path) -> None:
    trial = changed(trainable=("head", "layer3"), compile="default", limit_train=None, weight_decay=1e-4)
    found, count = estimate.from_rows(as_text(tmp_path, row(trial, 30)), 0)
    assert (found.seconds(trial), found.seconds(dataclasses.replace(trial, seed=3)), count) == (30, 30, 1)


@pytest.mark.parametrize(
    "other", [{"host": "another"}, {"cpu_model": "x"}, {"device_name": "NVIDIA A10"}, {"cpu_count": 999}]
)
def test_rows_of_other_machines_say_nothing(tmp_path: Path, other: dict[str, Any]) -> None:
    found, count = estimate.from_rows(as_text(tmp_path, row(BASE, 30, **other)), 0)
    assert (found.seconds(BASE), count) == (None, 0)


def test_a_row_of_a_gpu_counts_where_there_is_one_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = as_text(tmp_path, row(BASE, 30, device_name="NVIDIA A10"), row(BASE, 90), row(BASE, 70, device_name=None))
    for names, seconds in (({"NVIDIA A10"}, 30), ({"NVIDIA T4"}, None), (None, 30)):
        monkeypatch.setattr(nvml, "device_names", lambda names=names: names)
        assert estimate.from_rows(rows, 1)[0].seconds(BASE) == seconds


@pytest.mark.parametrize(
    ("known", "rows", "text"),
    [
        (
            [60.0] * 12 + [None] * 4,
            8,
            "about 12 min for 12 of 16 trials (from 8 rows of this machine); 4 have no row to go by",
        ),
        ([30.0, None], 1, "about 30 s for 1 of 2 trials (from 1 row of this machine); 1 has no row to go by"),
        ([9000.0, 3600.0], 2, "about 3.5 h for 2 trials (from 2 rows of this machine)"),
        ([None], 3, "no row of this machine says how long 1 trial may take"),
    ],
)
def test_the_sum_in_words(known: list[float | None], rows: int, text: str) -> None:
    assert estimate.summary(known, rows) == text


def test_trials_side_by_side_take_their_share_of_the_time() -> None:
    assert estimate.summary([60.0] * 12, 8, parallel=4) == "about 3 min for 12 trials (from 8 rows of this machine)"


# --dry-run


def dry(launch: Launch, *words: str) -> list[str]:
    done = launch("run", NAME, "--arm", "16x8,64x2", "--device", "cpu", "--dry-run", *words)
    assert done.returncode == 0
    notes = done.stderr.splitlines()
    assert len(notes) <= ("--processes" in words)  # what it does to the effective batch
    return done.stdout.splitlines()


def test_a_dry_run_shows_titles_and_the_commands_that_would_run_and_leaves_nothing(
    launch: Launch, tmp_path: Path
) -> None:
    out = tmp_path / "a folder"
    words = ["--precision", "no,bf16", "--repeats", "2", "--processes", "2", "--out", str(out)]
    lines = dry(launch, *words)
    asked = request.read([NAME, "--arm", "16x8,64x2", "--device", "cpu", *words])
    assert len(lines) == 2 * len(asked.trials) + 1 == 17
    assert lines[0] == f"# [1/8] {NAME} 16x8 precision=no repeat=0"
    assert lines[14] == f"# [8/8] {NAME} 16x8 precision=no repeat=1"
    for trial, line in zip(asked.trials, lines[1::2], strict=False):
        variables, words = accelerate_command.accelerate_command(trial, asked.options, 0)
        assert shell_words(line) == [*(f"{name}={value}" for name, value in variables.items()), *words]
    assert list(tmp_path.iterdir()) == []


def shell_words(line: str) -> list[str]:
    """What a shell makes of the line, asked of one."""
    script = f"set -- {line}; for word; do printf '%s\\n' \"$word\"; done"
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_dry_run_estimates_and_says_what_resume_leaves_out(launch: Launch, tmp_path: Path) -> None:
    first, second = request.read([NAME, "--arm", "16x8,64x2"]).trials
    failed = row(dataclasses.replace(second, repeat=1), 5, status="crashed")
    RunFolder(tmp_path).append("trials", [row(first, 600), failed])
    before = (tmp_path / "trials.csv").read_bytes()
    words = ["--repeats", "2", "--out", str(tmp_path)]
    plain = [line for line in dry(launch, *words) if line.startswith("#")]
    assert plain == [
        f"# [1/4] {NAME} 16x8 repeat=0, about 10 min; has a row, so --resume would leave it out",
        f"# [2/4] {NAME} 64x2 repeat=0",
        f"# [3/4] {NAME} 64x2 repeat=1; has a row, so --resume would leave it out",
        f"# [4/4] {NAME} 16x8 repeat=1, about 10 min",
        "# about 20 min for 2 of 4 trials (from 1 row of this machine); 2 have no row to go by",
    ]
    resumed = dry(launch, *words, "--resume")
    assert [line for line in resumed if line.startswith("#")] == [
        f"# [1/4] {NAME} 16x8 repeat=0: has its row, so --resume leaves it out",
        plain[1],
        f"# [3/4] {NAME} 64x2 repeat=1: has its row, so --resume leaves it out",
        plain[3],
        "# about 10 min for 1 of 2 trials (from 1 row of this machine); 1 has no row to go by",
    ]
    assert len(resumed) == 5 + 2
    again = [line for line in dry(launch, *words, "--resume", "--retry-failed") if "leaves it out" in line]
    assert again == [f"# [1/4] {NAME} 16x8 repeat=0: has its row, so --resume leaves it out"]
    assert (tmp_path / "trials.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]


def test_a_dry_run_of_one_of_several_machines_shows_what_that_one_would_start(launch: Launch, tmp_path: Path) -> None:
    words = ["--machines", "2", "--machine-rank", "1", "--rendezvous", "node0.cluster:2950", "--processes", "2"]
    command = dry(launch, *words, "--out", str(tmp_path))[1]
    assert " --machine_rank 1 --main_process_ip node0.cluster --main_process_port 2951 " in command


def test_a_dry_run_refuses_what_the_run_would(launch: Launch, tmp_path: Path) -> None:
    done = launch("run", NAME, "--precision", "fp16", "--dry-run", "--device", "cpu")
    assert (done.returncode, done.stdout) == (2, "")
    assert "fp16" in done.stderr
