"""A trial's roof is the lower of arithmetic and memory, by planted counts and ceilings, in the table and the chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from planted_rows import MACHINE, plant, plant_ceilings, rows_of, shown

from bench.machine import environment
from bench.record.run_folder import RunFolder
from reports import read
from reports.charts import Chart, Run
from reports.charts.roofline import draw
from reports.tables import table
from reports.tables.roofline import Roofline

# Ridges at 200 (bf16) and 25 (fp32) FLOP/byte.
COUNTS: dict[str, Any] = {"flops_per_window": 10**12, "accessed_bytes_per_window": 10**10}  # 100 FLOP/byte
BF16: dict[str, Any] = {**COUNTS, "precision": "bf16", "model_flops_per_s": 5e13}


def rooflines(folder: Path) -> list[Roofline | None]:
    sheets = table.sheets(read.trials(folder), read.ceilings(folder))
    return [row["roofline"] for sheet in sheets for row in sheet.rows]


@pytest.mark.parametrize(
    ("row", "side", "share"),
    [
        (BF16, "memory", 0.25),  # of 100 x 2e12
        ({**BF16, "model_flops_per_s": 3e14}, "memory", 1.5),
        ({**BF16, "recomputed_flops_per_window": 2 * 10**11}, "memory", 0.3125),  # a quarter more than the model's own
        ({**BF16, "accessed_bytes_per_window": 2 * 10**9}, "compute", 0.125),  # of 4e14
        ({**BF16, "accessed_bytes_per_window": 5 * 10**9}, "compute", 0.125),  # on the ridge
        ({**BF16, "precision": "no"}, "compute", 1.0),  # of 5e13
        ({**BF16, "device_count": 2, "processes": 2}, "memory", 0.125),  # of two devices
    ],
    ids=str,
)
def test_the_roof_is_the_lower_of_both(row: dict[str, Any], side: str, share: float, tmp_path: Path) -> None:
    plant(tmp_path, row)
    plant_ceilings(tmp_path)
    plant_ceilings(tmp_path, "of two", devices=2)
    (found,) = rooflines(tmp_path)
    assert found is not None
    assert (found.side(), found.share()) == (side, pytest.approx(share))
    assert found.copy_bytes_per_s == pytest.approx(2e12)
    assert found.ridge() == pytest.approx(200 if row["precision"] == "bf16" else 25)


def test_the_table_says_which_limit_is_lower_and_what_share_of_it_is_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, BF16, {**BF16, "arm": "128x1", "accessed_bytes_per_window": 10**9})
    plant_ceilings(tmp_path)
    text = shown(tmp_path, capsys)
    assert " ".join(rows_of(text)[0]).find(" 12.5 100 memory 25.0 ") > 0
    assert " ".join(rows_of(text, "128x1")[0]).find(" 12.5 1000 compute 12.5 ") > 0
    assert "copies on the device 2000 GB/s, read and written; ridge, FLOP/byte: fp32 25, tf32 125, bf16 200" in text
    assert "bytes are counted as if no cache kept any" in text
    assert "[1]" not in text


def copyless(folder: Path) -> None:
    product = {"kind": "matrix_product", "work": "w", "number_format": "bf16", "measuring": 1, "flops_per_s": 4e14}
    RunFolder(folder).append("ceilings", [{"launch_id": "c", **environment.machine(), **MACHINE, **product}])


@pytest.mark.parametrize(
    ("row", "ceilings", "note"),
    [
        (BF16, plant_ceilings, None),
        ({**BF16, "model_flops_per_s": 3e14}, plant_ceilings, "above the roof of memory: caches served bytes"),
        ({**BF16, "accessed_bytes_per_window": None}, plant_ceilings, "the version that ran it counted no bytes"),
        ({**BF16, **dict.fromkeys(COUNTS), "model_flops_per_s": None}, plant_ceilings, "give --warmup-windows 3"),
        (
            {**BF16, "accessed_bytes_per_window": None, "model_flops_per_s": None, "compiled_graphs": 1},
            plant_ceilings,
            "torch.compile's fused kernels",
        ),
        (BF16, copyless, "no copy was measured beside the ceiling"),
        ({**BF16, "status": "oom", "model_flops_per_s": None}, plant_ceilings, None),
        ({**BF16, "precision": "fp16"}, plant_ceilings, None),  # held against no ceiling either
    ],
)
def test_where_there_is_no_roof_and_where_it_is_passed_a_note_says_why(
    row: dict[str, Any], ceilings: Any, note: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, row)
    ceilings(tmp_path)
    text = shown(tmp_path, capsys)
    assert ("above the roof" in text or "under no roof" in text) == (note is not None)
    assert note is None or note in text


def drawn(folder: Path) -> Chart | None:
    (sheet,) = table.sheets(read.trials(folder), read.ceilings(folder))
    nothing = pd.DataFrame()
    return draw(Run(sheet.rows, nothing, nothing, lambda row: str(row["arm"])))


def test_without_ceilings_or_without_counts_there_is_no_chart(tmp_path: Path) -> None:
    plant(tmp_path, BF16)
    assert drawn(tmp_path) is None
    plant_ceilings(tmp_path)
    assert drawn(tmp_path) is not None
    (tmp_path / "trials.csv").unlink()
    plant(tmp_path, {**BF16, "accessed_bytes_per_window": None})
    assert drawn(tmp_path) is None


def test_the_chart_has_a_point_for_each_trial_and_a_roof_for_each_precision(tmp_path: Path) -> None:
    wide = {**BF16, "arm": "128x1", "precision": "no", "model_flops_per_s": 1e13}
    plant(tmp_path, BF16, wide)
    plant_ceilings(tmp_path)
    chart = drawn(tmp_path)
    assert chart is not None
    assert sorted(chart.figures) == [
        "128x1: 100 FLOP/byte, above the ridge at 25; 10 TFLOP/s of a device, 20.0% of the 50 that compute allows",
        "16x8: 100 FLOP/byte, below the ridge at 200; 50 TFLOP/s of a device, 25.0% of the 200 that memory allows",
    ]
    svg = chart.svg()
    for said in (*chart.figures, "bf16", "fp32", "arithmetic intensity, FLOP/byte", "TFLOP/s of a device"):
        assert said in svg, said
    lines, *_ = chart.drawing.layer
    corners = {(each.x, each.y, each.lower) for each in lines.data.itertuples()}
    left, right = 25 / 2.5, 200 * 2.5
    fp32 = {(left, 20.0, False), (25.0, 50.0, False), (right, 50.0, False)}
    bf16 = {(left, 20.0, False), (200.0, 400.0, False), (right, 400.0, False)}
    products = {(left, 20.0, True), (150.0, 300.0, True), (right, 300.0, True)}
    assert corners == fp32 | bf16 | products


def test_roofs_of_several_numbers_of_devices_are_told_apart(tmp_path: Path) -> None:
    plant(tmp_path, BF16, {**BF16, "arm": "64x2", "device_count": 2, "processes": 2})
    plant_ceilings(tmp_path)
    plant_ceilings(tmp_path, "of two", devices=2)
    chart = drawn(tmp_path)
    assert chart is not None
    svg = chart.svg()
    assert "bf16, 1 device<" in svg
    assert "bf16, 2 devices<" in svg
