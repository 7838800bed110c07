"""CSV files: rows come back as they went in, and are whole or absent."""

import csv
import errno
import fcntl
import os
import re
import resource
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import planted
import pytest

from bench.errors import UsageError
from bench.record import csvfile
from bench.record.columns import columns
from bench.record.run_folder import RunFolder
from reports import read

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


@pytest.mark.parametrize(
    "content",
    [
        b"time,value\n1,2\n",
        b"epoch,launch_id\n0,abc\n",
        b"launch_id,epoch,epoch\nabc,0,0\n",
        b"launch_id,\xff\nabc,0\n",
        b"\n",
        b"launch_id,my notes\n",
    ],
)
def test_a_file_that_no_run_wrote_is_left_alone(content: bytes, folder: RunFolder) -> None:
    path = folder.path / "epochs.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"no run wrote .*epochs.csv: it does not begin .* choose another --out"):
        folder.append("epochs", [{"epoch": 1}])
    assert path.read_bytes() == content
    assert [each.name for each in folder.path.iterdir() if each.is_file()] == ["epochs.csv"]


# Files of other versions

OLD = 'launch_id,of_old,epoch\nabc,7,0\nabd,"1, 2",1\n'


def test_an_older_file_gets_the_columns_that_it_lacks_and_keeps_those_that_we_do_not_know(folder: RunFolder) -> None:
    path = folder.path / "epochs.csv"
    path.write_text(OLD)
    folder.append("epochs", [{"launch_id": "new", "epoch": 2, "train_loss": 0.5}])
    first, second, third = written(path)
    assert list(first)[:3] == ["launch_id", "of_old", "epoch"]
    assert set(first) == {"of_old", *(column.name for column in columns("epochs"))}
    assert [row["of_old"] for row in (first, second, third)] == ["7", "1, 2", ""]
    assert [row["epoch"] for row in (first, second, third)] == ["0", "1", "2"]
    assert [row["train_loss"] for row in (first, second, third)] == ["", "", "0.5"]
    assert [each.name for each in folder.path.iterdir() if each.is_file()] == ["epochs.csv"]


def test_a_file_with_columns_more_is_added_to_in_its_own_order_and_not_written_anew(folder: RunFolder) -> None:
    path = folder.path / "steps.csv"
    names = [column.name for column in columns("steps")]
    head = ",".join(["launch_id", "of_the_future", *reversed(names[1:])])
    path.write_text(head + "\n")
    inode = path.stat().st_ino
    folder.append("steps", [{"launch_id": "a", "window": 7}])
    assert path.stat().st_ino == inode
    assert path.read_text().startswith(head + "\n")
    assert [(row["launch_id"], row["of_the_future"], row["window"]) for row in written(path)] == [("a", "", "7")]


def test_a_half_written_and_a_damaged_row_of_an_older_file_do_no_harm(folder: RunFolder) -> None:
    path = folder.path / "epochs.csv"
    path.write_bytes(OLD.encode() + b"abe,\xff\n" + b"abf,half")
    folder.append("epochs", [{"launch_id": "new"}])
    table, skipped = read.epochs(folder.path)
    assert (list(table["launch_id"]), skipped.rows) == (["abc", "abd", "new"], 1)


def test_a_large_older_file_takes_little_memory(folder: RunFolder) -> None:
    path = folder.path / "steps.csv"
    path.write_text("launch_id,window\n" + "".join(f"l,{number}\n" for number in range(700_000)))
    tracemalloc.start()
    folder.append("steps", [{"launch_id": "new", "window": 5}])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 32 * 2**20
    with open(path) as lines:
        assert sum(1 for _ in lines) == 700_002
        lines.seek(0)
        assert len({line.count(",") for line in lines}) == 1


def test_a_link_and_its_mode_stay(folder: RunFolder) -> None:
    real = folder.path.parent / "real.csv"
    real.write_text(OLD)
    real.chmod(0o640)
    (folder.path / "epochs.csv").symlink_to(real)
    folder.append("epochs", [{"launch_id": "new"}])
    assert (folder.path / "epochs.csv").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert [row["launch_id"] for row in written(real)] == ["abc", "abd", "new"]


@pytest.mark.parametrize("at", ["fsync", "copymode", "replace"])
def test_a_crash_while_columns_are_added_leaves_the_old_file(
    at: str, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.path / "epochs.csv"
    path.write_text(OLD)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(csvfile.shutil if at == "copymode" else csvfile.os, at, crash)
    with pytest.raises(KeyboardInterrupt):
        folder.append("epochs", [{"launch_id": "new"}])
    monkeypatch.undo()
    assert path.read_text() == OLD
    (folder.path / ".epochs.csv.widened").write_text("left by a process that was killed in the middle")
    folder.append("epochs", [{"launch_id": "new"}])
    assert [row["launch_id"] for row in written(path)] == ["abc", "abd", "new"]
    assert [each.name for each in folder.path.iterdir() if each.is_file()] == ["epochs.csv"]


def _append_some(path: Path) -> None:
    for number in range(10):
        RunFolder(path).append("steps", [{"launch_id": f"new{os.environ['RANK']}", "window": number}])


def test_writers_that_find_an_older_file_at_once_lose_no_row(folder: RunFolder) -> None:
    """Each waits for the lock of a file that another then replaces."""
    path = folder.path / "steps.csv"
    path.write_text("launch_id,window\n" + "old,1\n" * 50_000)
    with open(path, "a") as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        writers = pool.submit(planted.group, 4, _append_some, folder.path, said=folder.path)
        until = time.monotonic() + 60
        while not planted.waiting_for(path) and not writers.done() and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.5)  # for the others to wait, too
        fcntl.flock(held, fcntl.LOCK_UN)
        assert writers.result() == [0] * 4
    rows = written(path)
    assert [row["window"] for row in rows[:50_000]] == ["1"] * 50_000
    found = sorted((row["launch_id"], int(row["window"])) for row in rows[50_000:])
    assert found == [(f"new{rank}", number) for rank in range(4) for number in range(10)]
    assert [each.name for each in folder.path.iterdir() if each.suffix != ".txt" and each.is_file()] == ["steps.csv"]


def test_a_disk_that_is_full_while_columns_are_added_leaves_the_old_file(folder: RunFolder) -> None:
    path = folder.path / "trials.csv"
    path.write_text("launch_id,trial_key,arm\nabc,k,first\n")
    assert planted.group(1, _append_to_a_full_disk, folder.path, 100, said=folder.path) == [0]
    assert "File too large" in (folder.path / "rank0.txt").read_text()
    assert path.read_text() == "launch_id,trial_key,arm\nabc,k,first\n"
    assert not (folder.path / ".trials.csv.widened").exists()


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


def test_write_whole_that_is_interrupted_leaves_the_old_text_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.html").write_text("old")
    monkeypatch.setattr(csvfile.os, "replace", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        csvfile.write_whole(tmp_path / "report.html", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"report.html": "old"}


def test_write_whole_says_that_a_file_system_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Mock(side_effect=OSError(errno.EROFS, "Read-only file system"))
    for name in ("write_bytes", "unlink"):  # there, removing fails also where there is nothing to remove
        monkeypatch.setattr(Path, name, refused)
    with pytest.raises(UsageError, match=r"cannot write .*report.html: Read-only file system; make room or choose"):
        csvfile.write_whole(tmp_path / "report.html", "new")


def test_a_foreign_file_without_a_whole_line_is_not_taken_for_a_half_written_row(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_text("my notes")
    with pytest.raises(UsageError, match="no run wrote"):
        csvfile.append(path, ["a", "b"], [{"a": 1}])
    assert path.read_text() == "my notes"


def test_a_folder_is_no_file_to_write() -> None:
    with pytest.raises(UsageError, match=r"cannot write \.: it is a folder; give the name of a file"):
        csvfile.write_whole(Path(), "text")
