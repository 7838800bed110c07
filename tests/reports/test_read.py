"""Rows come out of a run folder as they went in; what is no table of ours is refused in one sentence."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.errors import UsageError
from bench.record.columns import OLDER, columns
from bench.record.run_folder import RunFolder
from reports import read as reading
from reports.cli import main
from reports.read import epochs, readable_trials, steps, trials
from reports.typed import TEXT, is_missing, numbers, typed

VALUES: dict[str, list[Any]] = {
    "int": [0, 7, 2**40 + 1, -1],
    "float": [0.0, 0.1, 1e-300, 123456.789, 1 / 3],
    "bool": [True, False],
    "str": ["plain", 'with "quotes", and commas', "ünïcode", "0123", "1e5", "true", "NA", "nan", "None"],
}
TRIALS, EPOCHS, STEPS = columns("trials"), columns("epochs"), columns("steps")


@pytest.mark.parametrize("column", [each for each in TRIALS if not each.form], ids=lambda column: column.name)
def test_every_column_reads_as_it_was_written(tmp_path: Path, column: Any) -> None:
    values = VALUES[column.type]
    key = "status" if column.name == "launch_id" else "launch_id"
    RunFolder(tmp_path).append("trials", [{key: "x", column.name: value} for value in values])
    read = trials(tmp_path)[column.name]
    older = OLDER.get(column.name, {})  # words of today in place of earlier versions'
    assert list(read) == ([older.get(value, value) for value in values] if older else values)
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
    [
        ("int", "1.5"),
        ("int", "many"),
        ("int", "inf"),
        ("float", "fast"),
        ("bool", "yes"),
        ("bool", "1"),
    ],
)
def test_a_cell_of_another_type_is_missing_and_named(tmp_path: Path, kind: str, text: str) -> None:
    name = next(column.name for column in TRIALS if column.type == kind)
    (tmp_path / "trials.csv").write_text(f"launch_id,{name}\nx,{text}\n")
    table, lost = readable_trials(tmp_path)
    assert table[name].isna().all()
    assert list(map(str, lost.cells)) == [f"trials.csv, column {name}: '{text}' in 1 row"]
    assert list(table["unreadable"]) == [f"{name} '{text}'"]
    with pytest.raises(UsageError, match=rf"no verdict on cells that cannot be read \(trials.csv, column {name}: "):
        trials(tmp_path)


@pytest.mark.parametrize("text", ["inf", "nan", "-1e999"])
def test_what_is_not_finite_is_missing(tmp_path: Path, text: str) -> None:
    (tmp_path / "trials.csv").write_text(f"launch_id,images_per_s\nx,{text}\n")
    assert trials(tmp_path)["images_per_s"].isna().all()


DAMAGED_TRIALS = {
    "too short": b"b,ok",
    "too long": b"b,ok,x,y",
    "a NUL": b"b,o\0k,x",
    "no UTF-8": b"b,\xff\xfe,x",
    "a quote that never ends": b'"b,ok,x',
    "a stray carriage return": b"b,o\rk,x",
    "an endless cell": b"b,ok," + b"x" * 200_000,
    "an endless line": b"b,ok," + b"x" * (3 * 2**20),
    "many cells": b"b,ok" + b"," * 2**18,
}


@pytest.mark.parametrize("line", DAMAGED_TRIALS.values(), ids=DAMAGED_TRIALS.keys())
def test_a_damaged_trial_takes_no_other_with_it_and_is_told(
    line: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To whoever looks; who judges gets no part of the rows."""
    lines(tmp_path, "trials", b'a,ok,"1, 2"', line, b"c,ok,3", head=b"launch_id,status,arm")
    table, skipped = readable_trials(tmp_path)
    assert (list(table["launch_id"]), list(table["arm"]), skipped.rows) == (["a", "c"], ["1, 2", "3"], 1)
    with pytest.raises(UsageError, match=r"trials.csv: 1 row of trials.csv cannot be read; python -m reports show"):
        trials(tmp_path)
    note = "note: 1 row of trials.csv cannot be read; the others are here\n"
    for words in (["show"], ["export", "--format", "json"]):
        main([words[0], str(tmp_path), *words[1:]])
        printed = capsys.readouterr()
        assert "1, 2" in printed.out
        assert printed.err == note
    main(["plot", str(tmp_path)])
    assert capsys.readouterr().err.startswith(note)


def test_a_page_says_what_it_leaves_out(tmp_path: Path) -> None:
    lines(tmp_path, "trials", b"a,ok", b"b", head=b"launch_id,status")
    main(["page", str(tmp_path)])
    assert "Not readable, and left out: 1 row of trials.csv." in (tmp_path / "report.html").read_text()


def test_half_a_row_is_none(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text("launch_id,status\na,ok\nb,o")
    assert list(trials(tmp_path)["launch_id"]) == ["a"]


WRONG: dict[str, bytes] = {
    "foreign": b"time,value\n1,2\n",
    "binary": os.urandom(5000).replace(b"\n", b"") + b"\xff\n",
    "an endless cell": b"launch_id,status\na," + b"x" * 200_000 + b"\n",
    "a stray carriage return": b"launch_id,status\na\rb,ok\n",
    "carriage returns alone": b"launch_id,status\ra,ok\r",
    "other columns in the place of the head": b"status,launch\nok,launch_id\n",
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
    assert line.startswith(f"error: cannot read {tmp_path}/trials.csv: none of its rows is one that a run wrote; give")
    assert (tmp_path / "trials.csv").read_bytes() == content


# Epochs and steps, whatever is in them


def lines(folder: Path, file: str, *rows: bytes, head: bytes | None = None) -> None:
    names = ",".join(column.name for column in columns(file)).encode()
    (folder / f"{file}.csv").write_bytes(b"".join(row + b"\n" for row in (head or names, *rows)))


def step(time: str, measured: str = "true") -> bytes:
    cells = {"launch_id": "a", "measured": measured, "step_time_s": time}
    return ",".join(cells.get(column.name, "") for column in STEPS).encode()


def test_measured_steps_are_read_and_warm_up_is_not(tmp_path: Path) -> None:
    lines(tmp_path, "steps", step("0.25"), step("9", "false"), step("0.5"))
    table, skipped = steps(tmp_path)
    assert (list(table["launch_id"]), list(table["step_time_s"]), skipped.rows) == (["a", "a"], [0.25, 0.5], 0)


DAMAGED = {
    "ragged": b"a,b",
    "too short": step("1")[:-1],
    "too long": step("1") + b",",
    "a NUL": step("1") + b"\0",
    "a quote that never ends": b'"' + step("1"),
    "no number": step("fast"),
    "infinite": step("inf"),
    "beyond infinite": step("1e999"),
    "not a number": step("nan"),
    "negative": step("-1"),
    "a formula": step("=1+1"),
    "neither true nor false": step("1", "perhaps"),
    "endless": step("1") + b"x" * (3 * 2**20),
    "empty": b",,,",
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_step_is_counted_and_takes_no_other_with_it(line: bytes, tmp_path: Path) -> None:
    lines(tmp_path, "steps", step("0.25"), line, step("0.5"), line, step("0.75"))
    table, skipped = steps(tmp_path)
    assert (list(table["step_time_s"]), skipped.rows) == ([0.25, 0.5, 0.75], 2)


def epoch(**cells: str) -> bytes:
    found = {"launch_id": "a", "epoch": "0", "train_loss": "1.5", **cells}
    return ",".join(found.get(column.name, "") for column in EPOCHS).encode()


@pytest.mark.parametrize(
    "line",
    [b"a,b", epoch() + b",x", epoch() + b"\0", b'"' + epoch(), b"\xff\xfe" + epoch(), b"x" * (3 * 2**20)],
    ids=["ragged", "too long", "a NUL", "a quote that never ends", "no UTF-8", "endless"],
)
def test_a_damaged_epoch_is_counted_and_takes_no_other_with_it(line: bytes, tmp_path: Path) -> None:
    lines(tmp_path, "epochs", epoch(train_loss="1"), line, epoch(train_loss="2", epoch="1"))
    table, skipped = epochs(tmp_path)
    assert (list(table["train_loss"]), list(table["epoch"]), skipped.rows) == ([1.0, 2.0], [0, 1], 1)
    assert list(table.columns) == [column.name for column in columns("epochs")]


@pytest.mark.parametrize("read", [epochs, steps])
@pytest.mark.parametrize("content", [None, b"", b"launch_id", b"time,value\n1,2\n", b"\n\n\n"], ids=str)
def test_where_there_is_no_such_table_there_are_no_rows(content: bytes | None, read: Any, tmp_path: Path) -> None:
    if content is not None:
        for file in ("epochs", "steps"):
            (tmp_path / f"{file}.csv").write_bytes(content)
    table, _ = read(tmp_path)
    assert len(table.dropna(how="all")) == 0


def put(folder: Path, what: str) -> None:
    """Something else in the place of each file."""
    for file in ("trials", "epochs", "steps"):
        path = folder / f"{file}.csv"
        if what == "pipe":
            os.mkfifo(path)
        elif what == "folder":
            path.mkdir()
        else:
            path.symlink_to({"loop": path, "device": Path("/dev/zero"), "error": Path("/proc/self/mem")}[what])


@pytest.mark.parametrize("what", ["pipe", "folder", "loop", "device"])
def test_what_is_no_file_is_not_waited_for(what: str, tmp_path: Path) -> None:
    put(tmp_path, what)
    assert [len(read(tmp_path)[0]) for read in (epochs, steps)] == [0, 0]
    with pytest.raises(UsageError, match=r"no .*trials.csv"):
        trials(tmp_path)


@pytest.mark.parametrize("read", [trials, epochs, steps])
def test_a_disk_that_cannot_be_read_is_one_sentence(read: Any, tmp_path: Path) -> None:
    put(tmp_path, "error")
    with pytest.raises(UsageError, match=r"cannot read .*csv: Input/output error; give"):
        read(tmp_path)


def test_rows_without_end_are_refused_before_they_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ROOM", 100 * (reading.CELL * len(columns("epochs")) + 1))
    for count in (100, 101):
        lines(tmp_path, "epochs", *[b"a"] * count, head=b"launch_id")
        if count == 100:
            assert len(epochs(tmp_path)[0]) == 100
    with pytest.raises(UsageError, match=r"epochs.csv is too large for one that a run wrote"):
        epochs(tmp_path)
    monkeypatch.setattr(reading, "MOST_STEPS", 1)
    lines(tmp_path, "steps", step("1"))
    assert len(steps(tmp_path)[0]) == 1
    lines(tmp_path, "steps", step("1"), step("2"))
    with pytest.raises(UsageError, match=r"steps.csv has more than 1 rows"):
        steps(tmp_path)


def test_numbers_of_steps_are_those_asked_for(tmp_path: Path) -> None:
    lines(tmp_path, "steps", b"a,true,0.25,7,inf", head=b"launch_id,measured,step_time_s,epoch,train_loss")
    table, skipped = steps(tmp_path, ["epoch", "train_loss", "data_wait_s"])
    assert list(table.columns) == ["launch_id", "epoch", "train_loss", "data_wait_s"]
    assert ([str(cell) for cell in table.iloc[0]], skipped.rows) == (["a", "7.0", "nan", "nan"], 0)


def test_a_cell_is_a_number_in_every_file_or_in_none() -> None:
    (column,) = [each for each in STEPS if each.name == "step_time_s"]
    for text in (
        " 12.5",
        "12.5 ",
        "\t1",
        "1 2",
        "12.5",
        "-1.5e3",
        "5.",
        "NaN",
        "-inf",
        "ınf",
        "１２",
        "1_0",
        "0x1",
        "x",
        "",
    ):
        table = pd.DataFrame({"step_time_s": [text or pd.NA, "2.5"]}, dtype=TEXT)
        found, bad = numbers(table, "step_time_s")
        assert [None if pd.isna(each) else each for each in found] == [typed(text, column), 2.5], text
        assert bad == ([] if typed(text, column) is not None or is_missing(text, column) else [text]), text


def test_rows_of_an_older_version_are_read(tmp_path: Path) -> None:
    lines(tmp_path, "steps", b"a,true,0.25,7", head=b"launch_id,measured,step_time_s,of_old")
    assert list(steps(tmp_path)[0]["step_time_s"]) == [0.25]
    lines(tmp_path, "epochs", b"a,3,0.5", head=b"launch_id,epoch,train_loss")
    assert list(epochs(tmp_path)[0]["epoch"]) == [3]


def test_many_steps_are_all_read(tmp_path: Path) -> None:
    """More than a block of the file holds."""
    lines(tmp_path, "steps", *[step(f"{n + 1}") for n in range(60_000)])
    table, skipped = steps(tmp_path)
    assert (table["step_time_s"].sum(), len(table), skipped.rows) == (60_000 * 60_001 / 2, 60_000, 0)


@pytest.mark.parametrize("read", [epochs, steps])
def test_an_endless_field_fills_no_memory(read: Any, tmp_path: Path) -> None:
    """Its bytes are holes in the file, which are read as NULs."""
    RunFolder(tmp_path).append("epochs", [{"launch_id": "a", "epoch": 0}])
    RunFolder(tmp_path).append("steps", [{"launch_id": "a", "measured": True, "step_time_s": 0.5}])
    for file in ("epochs", "steps"):
        with open(tmp_path / f"{file}.csv", "ab") as damaged:
            damaged.truncate(2**28)
    tracemalloc.start()
    table, skipped = read(tmp_path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(table), skipped.rows) == (1, 1)
    assert most < 2**25


def test_a_file_of_ten_gigabytes_is_no_table_of_trials(tmp_path: Path) -> None:
    with open(tmp_path / "trials.csv", "ab") as damaged:
        damaged.truncate(10 * 2**30)
    with pytest.raises(UsageError, match="too large for one that a run wrote, 10 GiB"):
        trials(tmp_path)
