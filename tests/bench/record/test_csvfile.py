"""CSV files: rows come back as they went in, and are whole or absent."""

import csv
import fcntl
import os
import re
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import planted
import pytest

from bench.errors import UsageError
from bench.record import csvfile
from bench.record.run_folder import RunFolder

AWKWARD = "RuntimeError: \"a\", b;\r\n  c\td 'e' \u2028 \x85 \x1c µ,"


def written(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    return folder


def test_values_come_back_as_they_went_in(folder: RunFolder) -> None:
    rate, loss = 0.1 + 0.2, 1e-17 / 3
    row: dict[str, Any] = {
        "images_per_s": rate,
        "train_loss": loss,
        "batch_is_shared": True,
        "replaced_skip": False,
        "micro_batch": 2**40,
    }
    row |= {"eval_loss": float("nan"), "step_time_cv": float("inf"), "driver": None, "head": (512, 128), "dropout": ()}
    folder.append("trials", [row | {"peak_rss_bytes": 0, "milestones": (0.4, 0.8)}])
    (read,) = folder.rows("trials")
    assert float(read["images_per_s"]) == rate
    assert float(read["train_loss"]) == loss
    assert (read["eval_loss"], read["step_time_cv"]) == ("nan", "inf")
    assert (read["batch_is_shared"], read["replaced_skip"]) == ("true", "false")
    assert int(read["micro_batch"]) == 2**40
    assert (read["driver"], read["dropout"], read["peak_rss_bytes"]) == ("", "", "0")
    assert (read["head"], read["milestones"]) == ("512 128", "0.4 0.8")
    assert read["eval_accuracy"] == ""


def test_awkward_text_stays_one_cell_of_one_line(folder: RunFolder) -> None:
    awkward_parts = ("layer1.0\n", 'he"ad,')
    folder.append("trials", [{"error": AWKWARD, "arm": "x", "trainable": awkward_parts}] * 2)
    path = folder.path / "trials.csv"
    assert path.read_bytes().count(b"\n") == 3
    for rows in (written(path), folder.rows("trials")):
        assert [row["error"] for row in rows] == ["RuntimeError: \"a\", b; c d 'e' µ,"] * 2
        assert [row["trainable"] for row in rows] == ['layer1.0 he"ad,'] * 2
        assert [row["arm"] for row in rows] == ["x"] * 2


def test_text_that_is_no_utf8_does_not_cost_the_row(folder: RunFolder) -> None:
    folder.append("trials", [{"error": "no file 'caf\udce9.pt'", "arm": "x"}])
    assert folder.rows("trials")[0]["arm"] == "x"


def test_a_file_with_other_columns_is_left_alone(folder: RunFolder) -> None:
    path = folder.path / "epochs.csv"
    path.write_text("launch_id,epoch\nabc,0\n")
    with pytest.raises(UsageError, match=r"other columns .* choose another --out"):
        folder.append("epochs", [{"epoch": 1}])
    assert path.read_text() == "launch_id,epoch\nabc,0\n"
    assert folder.rows("epochs") == [{"launch_id": "abc", "epoch": "0"}]


@pytest.mark.parametrize("cut", [1, 40, 200_000])
def test_a_half_written_last_row_is_not_read_and_is_cut_off_by_the_next_append(folder: RunFolder, cut: int) -> None:
    folder.append("trials", [{"arm": "one"}, {"arm": "two"}])
    path = folder.path / "trials.csv"
    whole = path.read_bytes()
    with open(path, "ab") as file:
        file.write((b"three,half\xc3" * cut)[:cut])
    assert [row["arm"] for row in folder.rows("trials")] == ["one", "two"]
    folder.append("trials", [{"arm": "four"}])
    assert path.read_bytes().startswith(whole)
    assert [row["arm"] for row in written(path)] == ["one", "two", "four"]


def test_a_half_written_header_is_written_anew(folder: RunFolder) -> None:
    path = folder.path / "steps.csv"
    path.write_bytes(b"launch_id,epo")
    assert folder.rows("steps") == []
    folder.append("steps", [{"window": 7}])
    assert [row["window"] for row in written(path)] == ["7"]


def _append_many(path: Path, count: int) -> None:
    for number in range(count):
        RunFolder(path).append(
            "steps", [{"launch_id": os.environ["RANK"], "window": number, "images": n} for n in (1, 2)]
        )
        for row in RunFolder(path).rows("steps"):
            assert row["images"] in ("1", "2"), row
            assert None not in row, row


def test_rows_of_several_processes_are_whole_and_a_reader_never_sees_half_a_row(folder: RunFolder) -> None:
    assert planted.group(3, _append_many, folder.path, 15, said=folder.path) == [0] * 3
    rows = written(folder.path / "steps.csv")
    found = sorted((int(row["launch_id"]), int(row["window"]), int(row["images"])) for row in rows)
    assert found == [(rank, number, n) for rank in range(3) for number in range(15) for n in (1, 2)]


def _append_one(path: Path) -> None:
    RunFolder(path).append("steps", [{"window": 7}])


def test_a_writer_waits_for_the_one_before(folder: RunFolder) -> None:
    path = folder.path / "steps.csv"
    with open(path, "a") as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        writer = pool.submit(planted.group, 1, _append_one, folder.path, said=folder.path)
        until = time.monotonic() + 60
        while not planted.waiting_for(path) and not writer.done() and time.monotonic() < until:
            time.sleep(0.02)
        assert path.read_bytes() == b""
        fcntl.flock(held, fcntl.LOCK_UN)
        assert writer.result() == [0]
    assert [row["window"] for row in written(path)] == ["7"]


def _append_to_a_full_disk(path: Path, room: int) -> None:
    file = path / "trials.csv"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + room if file.exists() else room, hard))
    try:
        RunFolder(path).append("trials", [{"arm": "second", "error": "x" * 500}, {"arm": "third"}])
    except UsageError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        print(error)


@pytest.mark.parametrize("room", [0, 1, 300, 600])
def test_a_full_disk_is_one_sentence_and_the_file_is_what_it_was(folder: RunFolder, room: int) -> None:
    folder.append("trials", [{"arm": "first"}])
    path = folder.path / "trials.csv"
    before = path.read_bytes()
    assert planted.group(1, _append_to_a_full_disk, folder.path, room, said=folder.path) == [0]
    said = (folder.path / "rank0.txt").read_text()
    assert re.fullmatch(r"cannot write .*trials.csv: File too large; make room or choose another --out\n", said)
    assert path.read_bytes() == before
    folder.append("trials", [{"arm": "after"}])
    assert [row["arm"] for row in written(path)] == ["first", "after"]


def test_a_disk_that_is_full_from_the_start_leaves_no_half_header(folder: RunFolder) -> None:
    assert planted.group(1, _append_to_a_full_disk, folder.path, 20, said=folder.path) == [0]
    assert "File too large" in (folder.path / "rank0.txt").read_text()
    assert (folder.path / "trials.csv").read_bytes() == b""
    assert folder.rows("trials") == []


def test_write_whole_leaves_the_old_text_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    csvfile.write_whole(path, "old")
    (tmp_path / "g.json").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*g.json"):
        csvfile.write_whole(tmp_path / "g.json", "new")
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.json", "g.json"]


def test_a_foreign_file_without_a_whole_line_is_not_taken_for_a_half_written_row(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_text("my notes")
    with pytest.raises(UsageError, match="other columns"):
        csvfile.append(path, ["a", "b"], [{"a": 1}])
    assert path.read_text() == "my notes"


def test_a_folder_is_no_file_to_write() -> None:
    with pytest.raises(UsageError, match=r"cannot write \.: it is a folder; give the name of a file"):
        csvfile.write_whole(Path(), "text")
