"""Trials are held against the ceilings of their own machine, at their own number format, and against no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planted_rows import MACHINE, launches, plant, plant_ceilings, rows_of, shown

from bench.machine import environment
from bench.record.run_folder import RunFolder
from reports import read
from reports.charts.step_parts import parts
from reports.cli import main
from reports.tables.ceilings import with_ceilings
from reports.tables.summary import row_of

BF16: dict[str, Any] = {"precision": "bf16", "model_flops_per_s": 2e14}


def shares(folder: Path) -> list[float | None]:
    rows = [{**row_of(row), "spread": {}} for row in read.trials(folder).to_dict("records")]
    return [row["ceiling_share"] for row in with_ceilings(rows, read.ceilings(folder))]


@pytest.mark.parametrize(
    ("row", "share"),
    [
        (BF16, 0.5),
        ({**BF16, "device_count": 2, "processes": 2}, 0.25),
        ({"model_flops_per_s": 1e13}, 0.2),
        ({"model_flops_per_s": 1e13, "tf32": True}, 0.04),
        ({**BF16, "precision": "fp16"}, None),
        ({**BF16, "model_flops_per_s": None}, None),
        ({**BF16, "machines": 2, "processes": 2, "device_count": 2}, None),
        *(({**BF16, name: "another"}, None) for name in ("host", "device_name", "cpu_model", "torch", "driver")),
        ({**BF16, "power_limit_w": 300.0}, None),
        ({**BF16, "commit": "another", "threads": 3}, 0.5),
        ({**BF16, "device_count": 4, "processes": 4}, None),
    ],
    ids=str,
)
def test_a_share_is_of_the_slowest_device_s_best_times_the_devices(
    row: dict[str, Any], share: float | None, tmp_path: Path
) -> None:
    plant(tmp_path, row)
    plant_ceilings(tmp_path)
    plant_ceilings(tmp_path, "of two", devices=2)
    assert shares(tmp_path) == [share if share is None else pytest.approx(share)]


def test_a_trial_on_unlike_devices_is_held_against_the_slower_one_too(tmp_path: Path) -> None:
    """Rank 0's device alone has 5e14."""
    plant(tmp_path, {**BF16, "device_count": 2, "processes": 2})
    head = {"launch_id": "c", "kind": "convolution", "number_format": "bf16", "measuring": 2}
    rows = [{**environment.machine(), **MACHINE, **head, "rank": 0, "flops_per_s": 5e14}]
    rows.append({**rows[0], "rank": 1, "device_name": "NVIDIA A100", "flops_per_s": 2e14})
    RunFolder(tmp_path).append("ceilings", rows)
    assert shares(tmp_path) == [pytest.approx(2e14 / (2 * 2e14))]


def test_a_cpu_is_one_device(tmp_path: Path) -> None:
    plant(tmp_path, {"device_name": "cpu", "device_count": 0, "processes": 2, "model_flops_per_s": 1e13})
    plant_ceilings(tmp_path, device_name="cpu", device_count=0)
    all_reduce = {"launch_id": "c", "kind": "all_reduce", "measuring": 2, "device_name": "cpu", "device_count": 0}
    RunFolder(tmp_path).append("ceilings", [{**environment.machine(), **MACHINE, **all_reduce}])
    assert shares(tmp_path) == [pytest.approx(0.2)]


def test_the_last_measurement_counts(tmp_path: Path) -> None:
    plant(tmp_path, BF16)
    plant_ceilings(tmp_path)
    again = {"launch_id": "later", "kind": "convolution", "number_format": "bf16", "measuring": 1, "flops_per_s": 1e15}
    RunFolder(tmp_path).append("ceilings", [{**environment.machine(), **MACHINE, **again}])
    assert shares(tmp_path) == [pytest.approx(0.2)]


def test_the_table_shows_it_and_says_where_nothing_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, BF16 | {"mfu": 0.2}, {"arm": "128x1", "host": "other"} | BF16)
    assert "ceiling" not in shown(tmp_path, capsys)
    plant_ceilings(tmp_path)
    text = shown(tmp_path, capsys)
    assert "50.0" in rows_of(text)[0]
    assert "20.0" in rows_of(text)[0]  # MFU
    assert text.count("of the") == 1  # the other machine's table has no such column
    assert "measured at most, TFLOP/s: fp32 50, tf32 250, bf16 400" in text
    assert "other: NVIDIA H100" in text
    assert "ceilings.csv has none of this machine and versions, so nothing here is held against it" in text


def test_a_trial_on_other_numbers_of_devices_is_held_against_none_and_told_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one GPU of the first trial may be the faster of the two that were measured, and had the power of both."""
    plant(tmp_path, BF16 | {"model_flops_per_s": 4.7e14}, {"arm": "128x1", "device_count": 2, "processes": 2} | BF16)
    plant_ceilings(tmp_path, devices=2)
    assert shares(tmp_path) == [None, pytest.approx(0.25)]
    text = shown(tmp_path, capsys)
    assert "held against no ceiling: measured with 2 at once, and this trial used 1" in text
    assert "python -m launch ceilings --processes 1 measures it" in text
    assert "measured at most with 2 devices, TFLOP/s: fp32 100, tf32 500, bf16 800" in text
    assert "none of this machine" not in text


def test_a_trial_above_its_ceiling_says_that_the_ceiling_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, BF16 | {"model_flops_per_s": 5e14})
    plant_ceilings(tmp_path)
    assert "something disturbed the ceilings, measure them again" in shown(tmp_path, capsys)


def test_a_step_is_split_at_the_ceiling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A step of 20 ms of which 5 wait for data: half the ceiling is 10 ms at it, and 5 more of compute."""
    launches(tmp_path, BF16, {"arm": "128x1", "model_flops_per_s": 5e12})
    plant_ceilings(tmp_path)
    main(["page", str(tmp_path), "-o", str(tmp_path / "page.html")])
    assert capsys.readouterr().err == ""
    text = (tmp_path / "page.html").read_text()
    for tip in (
        "16x8: compute at the ceiling 10 ms",
        "16x8: rest of compute 5 ms",
        "16x8: data wait 5 ms",
    ):
        assert f'aria-label="{tip}"' in text, tip
    row = {"data_wait_s": 0.005, "measured_windows": 400, "measured_time_s": 8.0, "compute_s": 0.015, "processes": 1}
    without = parts({**row, "exposed_communication_s": None, "ceiling_share": None})
    assert without == {"compute": 0.015, "data wait": 0.005}
    # Two processes, 20 ms: 10 of compute, of which 4 are at the ceiling, 3 of exposed communication, 2 of data wait.
    two = {**row, "processes": 2, "compute_s": 0.010, "exposed_communication_s": 0.003, "data_wait_s": 0.002}
    assert parts({**two, "ceiling_share": 0.2}) == {
        "compute at the ceiling": pytest.approx(0.004),
        "rest of compute": pytest.approx(0.006),
        "exposed communication": 0.003,
        "data wait": 0.002,
    }
