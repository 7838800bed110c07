"""Run folders become one: every launch once, nothing lost, and nothing at all where something is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from launching import python, rows

from bench.errors import UsageError
from bench.record.columns import FILES, columns
from bench.record.run_folder import RunFolder
from reports import merge

TRIAL: dict[str, Any] = {
    "experiment": "e",
    "arm": 'with "quotes", and commas',
    "repeat": 0,
    "status": "ok",
    "host": "a",
}


def put(folder: Path, launch_id: str, steps: int = 3, **more: Any) -> None:
    """A launch's rows, log and environment."""
    run = RunFolder(folder)
    run.logs().mkdir(parents=True, exist_ok=True)
    environment = {"host": more.get("host", "a")}
    key = f"env-{environment['host']}"
    log = f"logs/{launch_id}.log"
    row = {**TRIAL, "launch_id": launch_id, "trial_key": "k", "environment": key, "log": log, **more}
    run.append("trials", [row])
    run.append("epochs", [{"launch_id": launch_id, "epoch": 0, "learning_rate": 0.1}])
    run.append("steps", [{"launch_id": launch_id, "epoch": 0, "window": number} for number in range(steps)])
    run.append("ranks", [{"launch_id": launch_id, "rank": rank, "host": "a"} for rank in range(2)])
    run.append("per_class", [{"launch_id": launch_id, "label": label, "images": 5} for label in range(2)])
    run.append("ceilings", [{"launch_id": launch_id, "kind": kind} for kind in ("convolution", "input")])
    run.append("rounds", [{"launch_id": launch_id, "round": "g-0"}])
    run.add_environment(key, environment)
    (folder / log).write_text(f"log of {launch_id}\n")
    (folder / "traces").mkdir(exist_ok=True)
    (folder / "traces" / f"{launch_id}.csv").write_text(f"operations of {launch_id}\n")
    (folder / "traces" / f"{launch_id}.json.gz").write_bytes(f"events of {launch_id}".encode())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """The folders of two machines."""
    folders = [tmp_path / "one", tmp_path / "two"]
    put(folders[0], "l1")
    put(folders[0], "l2", repeat=1)
    put(folders[1], "l3", host="b")
    put(folders[1], "l4", host="b", status="oom")
    return folders


def merged(folders: list[Path], out: Path) -> Path:
    merge.merge(folders, out)
    return out


def test_all_rows_logs_and_environments_of_both_are_there(two: list[Path], tmp_path: Path) -> None:
    before = [contents(folder) for folder in two]
    out = merged(two, tmp_path / "deep" / "all")
    for file in FILES:
        assert rows(out, file) == rows(two[0], file) + rows(two[1], file)
    for row in rows(out, "trials"):
        assert (out / row["log"]).read_text() == f"log of {row['launch_id']}\n"
        assert (out / "traces" / f"{row['launch_id']}.csv").read_text() == f"operations of {row['launch_id']}\n"
        assert (out / "traces" / f"{row['launch_id']}.json.gz").read_text() == f"events of {row['launch_id']}"
        assert row["environment"] in json.loads((out / "environment.json").read_text())
    assert [contents(folder) for folder in two] == before
    assert sorted(path.name for path in out.parent.iterdir()) == ["all"]
    assert out.stat().st_mode & 0o777 == two[0].stat().st_mode & 0o777


def test_a_launch_that_came_by_two_ways_counts_once(two: list[Path], tmp_path: Path, capsys: Any) -> None:
    first = merged(two, tmp_path / "first")
    again = merged([first, two[1], first, two[0]], tmp_path / "again")
    assert contents(again) == contents(first)
    assert capsys.readouterr().err == ""


def test_what_is_merged_takes_more_rows_as_any_run_folder(two: list[Path], tmp_path: Path) -> None:
    out = merged(two, tmp_path / "all")
    put(out, "l5")
    assert len(RunFolder(out).rows("trials")) == 5


def test_an_empty_folder_is_taken_and_one_in_use_is_not(two: list[Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    merged(two, tmp_path / "empty")
    (tmp_path / "file").write_text("kept")
    for out in (tmp_path / "empty", tmp_path / "file", two[0]):
        before = contents(tmp_path)
        with pytest.raises(UsageError, match="exists already"):
            merged(two, out)
        assert contents(tmp_path) == before


@pytest.mark.parametrize("file", FILES)
def test_a_copy_that_is_cut_off_is_named(two: list[Path], tmp_path: Path, file: str) -> None:
    copy = merged([two[0]], tmp_path / "copy")
    whole = (copy / f"{file}.csv").read_text().splitlines(keepends=True)
    (copy / f"{file}.csv").write_text("".join(whole[:-1]))
    before = contents(tmp_path)
    if file == "trials":  # a launch that had not ended when it was copied
        with pytest.raises(UsageError, match=r"launch l2 has other rows in .*/trials\.csv"):
            merged([copy, two[0]], tmp_path / "all")
    else:
        with pytest.raises(UsageError, match=rf"launch l2 has other rows in .*/{file}\.csv"):
            merged([two[0], copy], tmp_path / "all")
    assert contents(tmp_path) == before


def test_a_copy_with_another_number_in_it_is_named(two: list[Path], tmp_path: Path) -> None:
    copy = merged([two[0]], tmp_path / "copy")
    text = (copy / "epochs.csv").read_text()
    (copy / "epochs.csv").write_text(text.replace("0.1", "0.2", 1))
    with pytest.raises(UsageError, match="launch l1 has other rows"):
        merged([two[0], copy], tmp_path / "all")


def test_half_a_row_is_left_out_and_said(two: list[Path], tmp_path: Path, capsys: Any) -> None:
    whole = rows(two[0], "steps")
    with open(two[0] / "steps.csv", "a") as file:
        file.write("l2,0,9")
    out = merged(two, tmp_path / "all")
    assert rows(out, "steps") == whole + rows(two[1], "steps")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{two[0] / 'steps.csv'}: its last row is half-written and left out"


def test_a_launch_without_a_row_in_trials_keeps_its_epochs(two: list[Path], tmp_path: Path) -> None:
    RunFolder(two[1]).append("epochs", [{"launch_id": "under-way", "epoch": 0}])
    assert rows(merged(two, tmp_path / "all"), "epochs")[-1]["launch_id"] == "under-way"


def test_one_host_that_ran_a_trial_twice_is_noted_and_two_hosts_are_not(tmp_path: Path, capsys: Any) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    put(one, "l1")
    put(two, "l2", host="b")
    put(three, "l3", status="crashed")
    assert len(rows(merged([one, two, three], tmp_path / "well"), "trials")) == 3
    assert capsys.readouterr().err == ""
    merged([one], tmp_path / "alone")
    assert capsys.readouterr().out == f"{tmp_path / 'alone'}: 1 trial and 2 ceilings of 1 run folder\n"
    put(three, "l4")
    assert len(rows(merged([one, two, three], tmp_path / "noted"), "trials")) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "two ok rows, both kept, of 1 trial: e " in line
    assert not line.endswith("...")
    assert f"repeat 0, on a ({one}, {three})" in line


def test_a_log_that_is_missing_is_said_and_a_row_without_one_is_well(
    two: list[Path], tmp_path: Path, capsys: Any
) -> None:
    (two[0] / "logs" / "l1.log").unlink()
    put(two[0], "l9", repeat=2, log=None)
    merged(two, tmp_path / "all")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{two[0] / 'logs' / 'l1.log'}, a launch's log, is not there to be copied"


def measured(folder: Path, launch_id: str) -> None:
    """A launch of ceilings alone, with its log."""
    run, log = RunFolder(folder), f"logs/{launch_id}.log"
    run.logs().mkdir(parents=True, exist_ok=True)
    run.append("ceilings", [{"launch_id": launch_id, "kind": kind, "log": log} for kind in ("convolution", "input")])
    (folder / log).write_text(f"log of {launch_id}\n")


def test_the_log_of_ceilings_comes_along(two: list[Path], tmp_path: Path, capsys: Any) -> None:
    measured(two[1], "most")
    out = merged([*two, two[1]], tmp_path / "all")
    assert {row["log"] for row in rows(out, "ceilings") if row["launch_id"] == "most"} == {"logs/most.log"}
    assert (out / "logs" / "most.log").read_text() == "log of most\n"
    assert capsys.readouterr().err == ""


def test_a_folder_of_ceilings_alone_is_taken(two: list[Path], tmp_path: Path, capsys: Any) -> None:
    measured(tmp_path / "most", "most")
    out = merged([tmp_path / "most", *two], tmp_path / "all")
    assert len(rows(out, "ceilings")) == 10
    assert capsys.readouterr().out == f"{out}: 4 trials and 10 ceilings of 3 run folders\n"
    alone = merged([tmp_path / "most"], tmp_path / "alone")
    assert capsys.readouterr().out == f"{alone}: 2 ceilings of 1 run folder\n"
    assert contents(alone) == contents(tmp_path / "most")


@pytest.mark.parametrize("log", ["/etc/hostname", "../secret", "logs/../../secret", "logs/", "logs/.environment.lock"])
def test_a_log_outside_its_folder_is_not_fetched(two: list[Path], tmp_path: Path, log: str) -> None:
    (tmp_path / "secret").write_text("s")
    put(two[0], "l9", repeat=2)
    text = (two[0] / "trials.csv").read_text()
    (two[0] / "trials.csv").write_text(text.replace("logs/l9.log", log))
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="that is not in logs/"):
        merged(two, tmp_path / "all")
    assert contents(tmp_path) == before


def test_a_log_or_trace_that_links_elsewhere_is_not_fetched(two: list[Path], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (two[0] / "logs" / "l1.log").unlink()
    (two[0] / "logs" / "l1.log").symlink_to(tmp_path / "secret")
    (two[0] / "traces" / "l1.csv").unlink()
    (two[0] / "traces" / "l1.csv").symlink_to(tmp_path / "secret")
    found = contents(merged(two, tmp_path / "all"))
    assert "logs/l1.log" not in found
    assert "traces/l1.csv" not in found
    assert "traces/l1.json.gz" in found


def header(file: str) -> bytes:
    return ",".join(column.name for column in columns(file)).encode() + b"\n"


WRONG: dict[str, tuple[str, bytes, str]] = {
    "columns of none of ours": ("trials", b"time,status\nx,ok\n", "it does not begin with the columns of one"),
    "columns twice": ("steps", b"launch_id,status,status\nx,ok,ok\n", "it does not begin with the columns of one"),
    "no table": ("trials", b"no table at all\n", "it does not begin with the columns of one"),
    "binary": ("epochs", os.urandom(5000).replace(b"\n", b"") + b"\xff\n", "cannot read"),
    "binary without a line": ("trials", b"\xff\x00" * 500, "not one whole line in 1000 bytes"),
    "binary rows": ("steps", header("steps") + b"\xff\xfe\xff\n", "cannot read"),
    "short row": ("steps", header("steps") + b"l1,0\n", "line 2, is no row of ours"),
    "no launch": (
        "epochs",
        header("epochs") + b"../x" + b"," * header("epochs").count(b",") + b"\n",
        "is no row of ours",
    ),
    "endless cell": ("epochs", header("epochs") + b"x" * 200_000 + b"\n", "line 2, is no row of ours"),
    "twice": ("trials", header("trials") + 2 * (b"l1" + b"," * header("trials").count(b",") + b"\n"), "l1 twice"),
}


@pytest.mark.parametrize(("file", "content", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_no_run_wrote_is_refused_and_nothing_is_left(
    two: list[Path], tmp_path: Path, file: str, content: bytes, said: str
) -> None:
    (two[1] / f"{file}.csv").write_bytes(content)
    before = contents(tmp_path)
    done = python("-m", "reports", "merge", *map(str, two), "-o", str(tmp_path / "all"))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert str(two[1]) in line
    assert contents(tmp_path) == before
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b'{"env-a": {"host": "another"}}'])
def test_environments_that_are_none_or_contradict_are_refused(two: list[Path], tmp_path: Path, content: bytes) -> None:
    (two[1] / "environment.json").write_bytes(content)
    with pytest.raises(UsageError, match=str(two[1])):
        merged(two, tmp_path / "all")
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required: RUN, -o/--out"),
        (["-o", "FOLDER/out"], "required: RUN"),
        (["FOLDER/one"], "required: -o/--out"),
        (["FOLDER/one", "-o"], "-o/--out has no value; give one"),
        (["FOLDER/one", "-o", "FOLDER/x", "--out=FOLDER/y"], "-o/--out is given twice; give it once"),
        (
            ["FOLDER/one", "--force", "-o", "FOLDER/x"],
            "merge has no option '--force'; see python -m reports ",
        ),
        (["FOLDER/missing", "-o", "FOLDER/x"], "no FOLDER/missing/trials.csv"),
        (["FOLDER/one", "FOLDER/one/trials.csv", "-o", "FOLDER/x"], "no FOLDER/one/trials.csv/trials.csv"),
        (["FOLDER/one", "-o", "/proc/x"], "cannot write /proc/x"),
        (["FOLDER/one", "-o", "FOLDER/one/trials.csv/x"], "cannot write FOLDER/one/trials.csv/x"),
    ],
)
def test_a_wrong_word_is_named(two: list[Path], tmp_path: Path, words: list[str], said: str) -> None:
    before = contents(tmp_path)
    done = python("-m", "reports", "merge", *(word.replace("FOLDER", str(tmp_path)) for word in words))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert said.replace("FOLDER", str(tmp_path)) in line
    assert contents(tmp_path) == before


def test_a_merge_that_breaks_off_leaves_nothing(
    two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merge.shutil, "copyfile", full)
    with pytest.raises(UsageError, match="No space left"):
        merged(two, tmp_path / "all")
    assert contents(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_file_that_shrinks_under_the_merge_is_refused(two: list[Path], tmp_path: Path) -> None:
    source = merge.examine(two[0])
    (two[0] / "steps.csv").write_bytes((two[0] / "steps.csv").read_bytes()[:-40])
    with pytest.raises(UsageError, match=r"steps\.csv"):
        merge.write(tmp_path / "steps.csv", "steps", [source], merge.owned([source]))
