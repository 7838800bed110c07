"""Planted counts and planted tables of operations: what differs is named with its numbers, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from planted_rows import ARM, COUNTED, HOSTILE, NAME, plant, times

from reports import forms
from reports.forms import markdown
from reports.verdicts import compare
from reports.verdicts.comparison import OperationTime, Reasons
from reports.verdicts.report import ComparisonReport, show

COUNTS = {**COUNTED, "peak_bytes_per_window": 1000}
Operations = Mapping[str, tuple[int, float, float | None]]
CONVOLUTION, NORM = "aten::convolution", "aten::native_batch_norm"


def compared(
    folder: Path,
    base: dict[str, Any],
    head: dict[str, Any],
    tables: tuple[list[Operations], list[Operations]] = ([], []),
    odd: dict[str, Any] | None = None,
) -> ComparisonReport:
    """Five launches of each side with these cells. `tables`: of its first launches. `odd`: cells of HEAD's last one."""
    for side, cells, traced in (("base", base, tables[0]), ("head", head, tables[1])):
        (folder / side).mkdir()
        rows = [{**row, **COUNTS, **cells, "launch_id": f"{side}{n}"} for n, row in enumerate(times())]
        rows[-1] |= (odd or {}) if side == "head" else {}
        plant(folder / side, *rows)
        for number, table in enumerate(traced):
            trace(folder / side, f"{side}{number}", table)
    return compare.compare_runs(folder / "base", folder / "head", 0.02, 0.05, strict=False)


def trace(folder: Path, launch_id: str, table: Operations) -> None:
    (folder / "traces").mkdir(exist_ok=True)
    lines = [f"{name},{calls},{cpu},{'' if device is None else device}" for name, (calls, cpu, device) in table.items()]
    text = "\n".join(["operation,calls,self_cpu_time_s,self_device_time_s", *lines])
    (folder / "traces" / f"{launch_id}.csv").write_text(f"{text}\n")


def why(report: ComparisonReport) -> Reasons:
    (found,) = report.reasons
    assert found.trial == f"{NAME} {ARM}"
    return found


def lines(report: ComparisonReport, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show(report)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_equal_counts_are_said_to_be_equal_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = compared(tmp_path, {}, {})
    assert why(report) == Reasons(f"{NAME} {ARM}", "the exact counts of both sides are equal", [], [])
    assert [line for line in lines(report, capsys) if line.startswith("why")] == [
        f"why, {NAME} {ARM}: the exact counts of both sides are equal"
    ]


def test_each_count_that_differs_is_a_line_as_the_exact_gate_prints_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = {"casts_per_window": 0, "peak_bytes_per_window": 2000, "operation_kinds": "convolution 2, relu 7"}
    said = lines(compared(tmp_path, {}, changed), capsys)
    first = said.index(f"why, {NAME} {ARM}: 4 exact counts differ")
    assert said[first + 1 : first + 6] == [
        "  casts_per_window 1 -> 0",
        "  peak_bytes_per_window 1000 -> 2000",
        "  operation_kinds _to_copy missing: was 1",
        "  operation_kinds relu new: 7",
        "",
    ]


def test_launches_that_do_not_agree_are_named_and_their_counts_compared_with_nothing(tmp_path: Path) -> None:
    odd = {"waits_per_window": 3, "operation_kinds": "convolution 2"}
    found = why(compared(tmp_path, {}, {"casts_per_window": 5}, odd=odd))
    assert found.notes == [
        "the launches of HEAD do not agree in operation_kinds _to_copy (0, 1), waits_per_window (0, 3)"
    ]
    assert [(each.metric, each.why) for each in found.counts] == [("casts_per_window", "1 -> 5")]


def test_what_one_side_did_not_count_is_no_difference(tmp_path: Path) -> None:
    none = dict.fromkeys(("flops_per_window", "operations_per_window", "casts_per_window", "operation_kinds"))
    found = why(compared(tmp_path, none, {"total_parameters": 5}))
    assert [(each.metric, each.why) for each in found.counts] == [("total_parameters", "272474 -> 5")]
    assert found.notes == ["the operations of BASE were not counted; give --warmup-windows 3 or more"]


def test_without_any_count_nothing_is_said(tmp_path: Path) -> None:
    assert compared(tmp_path, dict.fromkeys(COUNTS), dict.fromkeys(COUNTS)).reasons == []


def test_a_cell_that_holds_no_counts_costs_no_verdict(tmp_path: Path) -> None:
    report = compared(tmp_path, {}, {"operation_kinds": "convolution many"})
    assert "has no counts of operation_kinds: 'convolution many' is none" in why(report).summary
    assert report.counts() == {"equivalent": 6}


def test_where_trials_cannot_be_compared_no_reason_is_given(tmp_path: Path) -> None:
    assert compared(tmp_path, {}, {"torch": "2.10.0", "casts_per_window": 0}).reasons == []


def test_the_operation_that_became_slower_comes_first_with_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two launches of BASE and three of HEAD: medians, and as much more in all as in the slower operation."""
    base: list[Operations] = [{CONVOLUTION: (4, 0.010 + more, None), NORM: (4, 0.020, None)} for more in (0.0, 0.002)]
    head: list[Operations] = [
        {CONVOLUTION: (4, 0.011, None), NORM: (6, 0.030 + more, None), "only here": (1, 0.0001, None)}
        for more in (0.0, 0.001, 0.004)
    ]
    report = compared(tmp_path, {}, {}, (base, head))
    norm, new, together = why(report).operations
    assert (norm.operation, norm.calls, norm.difference_s()) == (NORM, (4, 6), pytest.approx(0.011))
    assert (new.operation, new.base, new.head, new.calls) == ("only here", [0.0, 0.0], [0.0001] * 3, (0, 1))
    assert (together.operation, together.calls) == ("all operations", (8, 11))
    assert together.difference_s() == pytest.approx(0.0421 - 0.031)
    said = lines(report, capsys)
    (text,) = [line.split() for line in said if line.startswith(f" {NORM}")]
    assert text == [NORM, "20", "(20", "..", "20)", "31", "(30", "..", "34)", "+11", "4", "->", "6"]
    assert any("on the CPU" in line and "one traced step of 2 and 3 launches" in line for line in said)


def test_on_a_device_its_time_counts_and_not_the_cpu_s(tmp_path: Path) -> None:
    base: list[Operations] = [{CONVOLUTION: (4, 0.5, 0.010), NORM: (4, 0.1, 0.020)}]
    head: list[Operations] = [{CONVOLUTION: (4, 0.1, 0.015), NORM: (4, 0.9, 0.020)}]
    found = why(compared(tmp_path, {}, {}, (base, head)))
    assert [each.operation for each in found.operations] == [CONVOLUTION, "all operations"]
    assert found.operations[0].difference_s() == pytest.approx(0.005)
    assert found.about_times.startswith("on the device, ")


def test_at_most_ten_operations_are_shown(tmp_path: Path) -> None:
    base: list[Operations] = [{f"op{n}": (1, 1.0, None) for n in range(30)}]
    head: list[Operations] = [{f"op{n}": (1, 1.0 + n / 100, None) for n in range(30)}]
    found = why(compared(tmp_path, {}, {}, (base, head))).operations
    assert [each.operation for each in found] == [*(f"op{n}" for n in range(29, 19, -1)), "all operations"]


def test_a_trace_of_one_side_alone_tells_nothing(tmp_path: Path) -> None:
    assert why(compared(tmp_path, {}, {}, ([{NORM: (1, 1.0, None)}], []))).operations == ()


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "operation,calls,self_cpu_time_s,self_device_time_s\nx,1,nan,\n"])
def test_a_damaged_table_is_named_and_left_out(text: str, tmp_path: Path) -> None:
    compared(tmp_path, {}, {}, ([{NORM: (1, 1.0, None)}] * 2, [{NORM: (1, 2.0, None)}]))
    path = tmp_path / "base" / "traces" / "base0.csv"
    path.write_text(text)
    found = why(compare.compare_runs(tmp_path / "base", tmp_path / "head", 0.02, 0.05, strict=False))
    assert found.notes[0].startswith(f"{path} is no table of operations")
    assert found.operations[0].base == [1.0]


def test_a_launch_id_is_no_path(tmp_path: Path) -> None:
    tables: tuple[list[Operations], list[Operations]] = ([{NORM: (1, 1.0, None)}], [{NORM: (1, 2.0, None)}])
    report = compared(tmp_path, {}, {}, tables, odd={"launch_id": "../../head/traces/head0"})
    assert [len(each.head) for each in why(report).operations] == [1, 1]


def test_json_and_markdown_have_the_reasons(tmp_path: Path) -> None:
    tables: tuple[list[Operations], list[Operations]] = ([{NORM: (1, 1.0, None)}], [{NORM: (1, 2.0, None)}])
    report = compared(tmp_path, {}, {"casts_per_window": 0}, tables)
    (told,) = json.loads(forms.load("json").render(report))["reasons"]
    assert told["counts"] == [{"metric": "casts_per_window", "change": "1 -> 0"}]
    operation = told["operations"][0]
    assert (operation["operation"], operation["unit"], operation["difference"]) == (NORM, "s", 1.0)
    text = markdown.render(report).splitlines()
    assert f"Why, {forms.load('markdown').escaped(f'{NAME} {ARM}')}: 1 exact count differs" in text
    assert any(line.endswith("| 1000 | 2000 | +1000 | 1 |") for line in text)
    hostile = Reasons(HOSTILE, HOSTILE, [], [HOSTILE], [OperationTime(HOSTILE, [1.0], [2.0], (1, 1))], HOSTILE)
    assert "<script" not in markdown.render(dataclasses.replace(report, reasons=[hostile]))
    endless = dataclasses.replace(hostile, notes=["x" * 1000] * 100)
    assert len(markdown.render(dataclasses.replace(report, reasons=[endless] * 100)).encode()) < 2**20
