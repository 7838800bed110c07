"""Rows come out of a run folder as they went in; what is no table of ours is refused in one sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.record import RunFolder, UsageError, columns
from reports.cli import main
from reports.read import trials

VALUES: dict[str, list[Any]] = {
    "int": [0, 7, 2**40 + 1, -1],
    "float": [0.0, 0.1, 1e-300, 123456.789, 1 / 3, float("inf")],
    "bool": [True, False],
    "str": ["plain", 'with "quotes", and commas', "ünïcode", "0123", "1e5", "true", "NA", "nan", "None"],
}
TRIALS = columns("trials")


@pytest.mark.parametrize("column", TRIALS, ids=lambda column: column.name)
def test_every_column_reads_as_it_was_written(tmp_path: Path, column: Any) -> None:
    values = VALUES[column.type]
    key = "status" if column.name == "launch_id" else "launch_id"
    RunFolder(tmp_path).append("trials", [{key: "x", column.name: value} for value in values])
    read = trials(tmp_path)[column.name]
    assert list(read) == values
    assert not read.isna().any()


def test_what_was_not_written_is_missing_and_not_zero(tmp_path: Path) -> None:
    RunFolder(tmp_path).append("trials", [{"launch_id": "x"}])
    read = trials(tmp_path)
    assert list(read.columns) == [column.name for column in TRIALS]
    assert [name for name in read if not read[name].isna().all()] == ["launch_id"]


def test_columns_of_other_versions_are_missing_or_left_out(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text("launch_id,images_per_s,of_the_future\nx,2.5,1\n")
    read = trials(tmp_path)
    assert list(read.columns) == [column.name for column in TRIALS]
    assert list(read["images_per_s"]) == [2.5]
    assert read["status"].isna().all()


@pytest.mark.parametrize(
    ("kind", "text"),
    [("int", "1.5"), ("int", "many"), ("int", "inf"), ("float", "fast"), ("bool", "yes"), ("bool", "1")],
)
def test_a_cell_of_another_type_is_missing(tmp_path: Path, kind: str, text: str) -> None:
    name = next(column.name for column in TRIALS if column.type == kind)
    (tmp_path / "trials.csv").write_text(f"launch_id,{name}\nx,{text}\n")
    assert trials(tmp_path)[name].isna().all()


def test_rows_that_are_too_short_or_too_long_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text("launch_id,status,arm\na,ok\nb,ok,x,y,z\n")
    read = trials(tmp_path)
    assert list(read["launch_id"]) == ["a", "b"]
    assert [pd.isna(value) for value in read["arm"]] == [True, False]


def test_half_a_row_is_none(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text("launch_id,status\na,ok\nb,o")
    assert list(trials(tmp_path)["launch_id"]) == ["a"]


WRONG: dict[str, bytes] = {
    "foreign": b"time,value\n1,2\n",
    "binary": os.urandom(5000).replace(b"\n", b"") + b"\xff\n",
    "an endless cell": b"launch_id,status\na," + b"x" * 200_000 + b"\n",
    "a stray carriage return": b"launch_id,status\na\rb,ok\n",
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG.keys())
def test_what_no_run_wrote_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "trials.csv").write_bytes(content)
    with pytest.raises(UsageError):
        trials(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["show", str(tmp_path)])
    printed = capsys.readouterr()
    assert (caught.value.code, printed.out) == (2, "")
    (line,) = printed.err.splitlines()
    assert line.startswith(f"error: {'cannot read ' if content != WRONG['foreign'] else ''}{tmp_path}")
    assert (tmp_path / "trials.csv").read_bytes() == content
