"""Efficiency is that of comparable rows alone, and what the processes did is shown where there are several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planted_rows import MACHINE, plant, rows_of, shown, tables

from reports.read import trials
from reports.tables.scaling import with_efficiency
from reports.tables.summary import row_of

HEADS = ("compute", "exposed", "all-reduces", "MiB", "efficiency")
ALONE: dict[str, Any] = {"images_per_s": 100.0, "processes": 1, "micro_batch": 64, "batch_is_shared": False}
FOUR: dict[str, Any] = {**ALONE, "images_per_s": 300.0, "processes": 4, "device_count": 4, "threads": 1}
SPLIT: dict[str, Any] = {
    "measured_windows": 400,
    "measured_time_s": 8.0,  # 20 ms a window
    "compute_s": 0.012,
    "exposed_communication_s": 0.007,
    "data_wait_s": 0.001,
    "allreduces_per_window": 7,
    "allreduce_bytes_per_window": 3 * 2**19,
}


def efficiencies(folder: Path, *rows: dict[str, Any]) -> list[float | None]:
    folder.mkdir(exist_ok=True)
    plant(folder, *rows)
    found = with_efficiency([row_of(row) for row in trials(folder).to_dict("records")])
    return [row["efficiency"] for row in found]


def test_efficiency_is_throughput_over_so_many_times_that_of_one_process(tmp_path: Path) -> None:
    assert efficiencies(tmp_path, FOUR, ALONE) == [0.75, None]


def test_of_one_process_s_repeats_the_median_counts(tmp_path: Path) -> None:
    repeats = [{**ALONE, "images_per_s": rate, "repeat": number} for number, rate in enumerate((100.0, 50.0, 1000.0))]
    assert efficiencies(tmp_path, *repeats, {**FOUR, "repeat": 5}) == [None, None, None, 0.75]


def test_where_a_batch_is_shared_each_process_has_its_part_and_elsewhere_all_of_it(tmp_path: Path) -> None:
    shared = {"batch_is_shared": True}
    part, whole = {**FOUR, "micro_batch": 16}, {**FOUR, "micro_batch": 64}
    assert efficiencies(tmp_path / "strong", ALONE | shared, part | shared, whole | shared) == [None, 0.75, None]
    assert efficiencies(tmp_path / "weak", ALONE, part, whole) == [None, None, 0.75]


def test_what_means_nothing_to_one_process_is_not_compared(tmp_path: Path) -> None:
    assert efficiencies(tmp_path, ALONE, {**FOUR, "bucket_mib": 1.0, "gradient_compression": "bf16"}) == [None, 0.75]


@pytest.mark.parametrize(
    "other",
    [
        *({name: "another"} for name in ("host", "device_name", "cpu_model", "torch", "torchvision", "accelerate")),
        *({name: "another"} for name in ("cuda", "driver", "power_mode", "commit", "input_pipeline", "arm", "data")),
        *({name: 3} for name in ("cpu_count", "accumulate", "seed", "epochs", "limit_windows", "workers", "machines")),
        {"precision": "bf16"},
        {"status": "crashed"},
        {"images_per_s": None},
        {"host": None},
        {"torch": None},
    ],
    ids=str,
)
def test_unlike_rows_have_no_efficiency(other: dict[str, Any], tmp_path: Path) -> None:
    assert efficiencies(tmp_path / "alone", {**ALONE, **other}, FOUR) == [None, None]
    assert efficiencies(tmp_path / "four", ALONE, {**FOUR, **other}) == [None, None]


def test_unknown_machines_are_not_the_same_machine(tmp_path: Path) -> None:
    assert efficiencies(tmp_path, {**ALONE, "host": None}, {**FOUR, "host": None}) == [None, None]


def test_the_split_the_all_reduces_and_the_efficiency_are_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, ALONE | {"compute_s": 0.02}, FOUR | SPLIT)
    text = shown(tmp_path, capsys)
    assert all(head in text for head in HEADS)
    four, alone = rows_of(text)
    assert " ".join(four).startswith("16x8 4 ok 300 12.35 0.05 61.23 5 60 35 7 1.5 75 ")
    assert "75" not in alone
    assert "cores" not in text
    assert tables(text) == 1


def test_rows_of_one_process_have_none_of_these_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, ALONE | {"compute_s": 0.02})
    assert not any(head in shown(tmp_path, capsys) for head in HEADS)


def test_on_a_cpu_efficiency_is_said_to_be_the_cost_of_splitting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu = {"device_name": "cpu", "device_count": 0}
    plant(tmp_path, ALONE | cpu, FOUR | cpu)
    said = "all processes share one CPU's cores: efficiency is what splitting costs"
    assert shown(tmp_path, capsys).count(said) == 1
    (tmp_path / "without").mkdir()
    plant(tmp_path / "without", FOUR | cpu)
    assert said not in shown(tmp_path / "without", capsys)


def test_more_than_is_due_is_doubted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = "faster than so many single processes"
    plant(tmp_path, ALONE, FOUR | {"images_per_s": 400.0})
    assert said not in shown(tmp_path, capsys)
    (tmp_path / "doubtful").mkdir()
    plant(tmp_path / "doubtful", ALONE, FOUR | {"images_per_s": 440.0})
    assert said in shown(tmp_path / "doubtful", capsys)


def test_shares_that_overlap_are_said_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = "processes waited for each other"
    plant(tmp_path, FOUR | SPLIT)
    assert said not in shown(tmp_path, capsys)
    (tmp_path / "uneven").mkdir()
    plant(tmp_path / "uneven", FOUR | SPLIT | {"compute_s": 0.019})
    assert said in shown(tmp_path / "uneven", capsys)


def test_rows_from_before_there_were_such_columns_are_shown_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = ["launch_id", "status", "experiment", "arm", "processes", "micro_batch", "images_per_s", *MACHINE]
    lines = [
        ["a", "ok", "e", "x", "1", "64", "100", *map(str, MACHINE.values())],
        ["b", "ok", "e", "x", "4", "64", "300", *map(str, MACHINE.values())],
    ]
    (tmp_path / "trials.csv").write_text("\n".join(map(",".join, [head, *lines])) + "\n")
    assert rows_of(shown(tmp_path, capsys), "x")[0] == ["x", "4", "ok", "300", "75"]
