"""Run folders and baselines of another version: they are read, added to and compared, whatever columns are new since.

`old_run/` is of a version that had neither `eval_batch`, `tf32` nor `power_limit_w`. A new column comes from a probe of
the test's own, in a process that finds it as it finds all probes: by its folder.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from launching import python
from planted_rows import plant, shown, tables, times

from bench.record.columns import columns
from bench.record.run_folder import RunFolder
from reports.cli import main

OLD = Path(__file__).parent / "old_run"
FILES = ("trials", "epochs", "steps", "per_class")
PROBE = """
from bench.column import Column
from bench.probes import Probe as Probe

TRIALS = [Column("firmware", "str", "", "", "Version of the firmware.", roles=("{role}",))]
"""
# A version of ours that has one probe more.
RUN = """
import sys
import bench.probes
bench.probes.__path__.append(sys.argv[1])
from reports.cli import main
main(sys.argv[2:])
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def cells(path: Path, name: str) -> list[str]:
    with open(path, newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def repeated(folder: Path, **changes: Any) -> Path:
    """The old run's trial, launched five times by this version."""
    (row,) = RunFolder(OLD).rows("trials")
    known = {name: cell for name, cell in row.items() if cell} | {"compile": "none"}
    folder.mkdir()
    rows = [{**known, "launch_id": f"{folder.name}{n}", "repeat": n, **changes} for n in range(5)]
    RunFolder(folder).append("trials", rows)
    return folder


def test_the_old_run_is_of_a_version_that_had_fewer_columns() -> None:
    names = (OLD / "trials.csv").read_text().partition("\n")[0].split(",")
    assert {"eval_batch", "power_limit_w", "unmeasured_windows"} <= {column.name for column in columns("trials")} - {
        *names
    }


def test_an_old_run_is_shown(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(old, capsys)
    assert "resnet20_accumulation" in text
    assert "on tower: 2 CPUs AMD EPYC, torch 2.14.1" in text
    main(["page", str(old)])
    assert "resnet20_accumulation" in (old / "report.html").read_text()


def test_an_old_run_is_added_to(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: (old / f"{file}.csv").read_text().splitlines() for file in FILES}
    for file in FILES:
        RunFolder(old).append(file, [{"launch_id": "new"}])
        header, *lines = (old / f"{file}.csv").read_text().splitlines()
        assert header.startswith(before[file][0])
        assert [line[: len(row)] for line, row in zip(lines, before[file][1:], strict=False)] == before[file][1:]
        assert cells(old / f"{file}.csv", "launch_id")[-1] == "new"
    plant(old, {"launch_id": "another", "power_limit_w": 300.0, "eval_batch": 64})
    assert cells(old / "trials.csv", "power_limit_w") == ["", "", "300.0"]
    assert tables(shown(old, capsys)) == 3


def test_an_old_run_is_comparable(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = repeated(tmp_path / "head", max_sm_clock_hz=1.98e9)
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(old), str(head)])
    text = capsys.readouterr().out
    assert (ended.value.code, text.splitlines()[0]) == (0, "4 inconclusive")
    assert "max_sm_clock_hz is not known in BASE" in text


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ({"target_accuracy": 0.9}, 0, "4 inconclusive"),
        (
            {"target_accuracy": 0.9, "stop_at_target": True, "stop_accuracy": 0.9},
            3,
            "stop_accuracy nothing against 0.9",
        ),
    ],
)
def test_a_target_is_another_trial_only_if_it_ends_the_training(
    more: dict[str, Any], code: int, said: str, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old run is of a version that had no targets."""
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(old), str(repeated(tmp_path / "head", **more))])
    assert ended.value.code == code
    assert said in capsys.readouterr().out


def test_an_old_run_and_a_newer_one_are_merged_whichever_is_first(old: Path, tmp_path: Path) -> None:
    wider = Path(shutil.copytree(old, tmp_path / "wider"))
    RunFolder(wider).append("trials", [{"launch_id": "new", "eval_batch": 64}])
    RunFolder(wider).append("ranks", [{"launch_id": "new", "rank": number} for number in range(2)])
    for number, runs in enumerate(([old, wider], [wider, old])):
        main(["merge", *map(str, runs), "-o", str(tmp_path / f"{number}")])
        (first,) = cells(OLD / "trials.csv", "launch_id")
        assert sorted(cells(tmp_path / f"{number}" / "trials.csv", "launch_id")) == sorted([first, "new"])
        assert sorted(cells(tmp_path / f"{number}" / "trials.csv", "eval_batch")) == ["", "64"]
        assert cells(tmp_path / f"{number}" / "ranks.csv", "launch_id") == [
            "new",
            "new",
        ]  # the old run has no such file


def test_the_columns_of_a_newer_version_are_kept_by_a_merge(old: Path, tmp_path: Path) -> None:
    newer = Path(shutil.copytree(old, tmp_path / "newer"))
    (newer / "steps.csv").write_text("launch_id,window,of_the_future\na,0,7\n")
    (newer / "trials.csv").write_text("launch_id,trial_key,status,of_the_future\na,k,ok,8\n")
    (newer / "epochs.csv").unlink()
    (newer / "per_class.csv").unlink()
    main(["merge", str(old), str(newer), "-o", str(tmp_path / "all")])
    assert cells(tmp_path / "all" / "steps.csv", "of_the_future")[-1] == "7"
    assert cells(tmp_path / "all" / "trials.csv", "of_the_future") == ["", "8"]


# A column that is new


def newer(tmp_path: Path, role: str, *words: object) -> subprocess.CompletedProcess[str]:
    """A command of a version that has a column `firmware` of this role."""
    probes = tmp_path / "probes"
    probes.mkdir(exist_ok=True)
    (probes / "firmware.py").write_text(PROBE.format(role=role))
    done = python("-c", RUN, str(probes), *map(str, words))
    assert done.stderr == ""
    return done


def run(folder: Path, firmware: str | None) -> Path:
    """Five launches, with a cell of the new column; None: of a version without it."""
    folder.mkdir(parents=True)
    plant(folder, *[{"launch_id": f"{folder.name}{number}", **row} for number, row in enumerate(times())])
    if firmware is not None:
        head, *lines = (folder / "trials.csv").read_text().splitlines()
        cells = [f"{head},firmware", *(f"{line},{firmware}" for line in lines)]
        (folder / "trials.csv").write_text("".join(f"{line}\n" for line in cells))
    return folder


@pytest.mark.parametrize("role", ["machine", "adjustable", "input", "launch"])
def test_a_new_column_of_the_machine_counts_where_both_know_it(role: str, tmp_path: Path) -> None:
    old, one, other = (run(tmp_path / name, value) for name, value in (("old", None), ("one", "1a"), ("other", "2b")))
    done = newer(tmp_path, role, "compare", one, other)
    assert done.returncode == 3
    assert "not comparable: firmware 1a against 2b" in done.stdout
    done = newer(tmp_path, role, "compare", old, other)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "6 equivalent")
    assert "firmware is not known in BASE" in done.stdout


@pytest.mark.parametrize(("role", "apart"), [("machine", 2), ("launch", 1)])
def test_a_new_column_of_the_machine_keeps_tables_and_medians_apart(role: str, apart: int, tmp_path: Path) -> None:
    both = run(tmp_path / "both", "1a")
    other = (run(tmp_path / "other", "2b") / "trials.csv").read_text().splitlines()[1:]
    with open(both / "trials.csv", "a") as file:
        file.writelines(f"{line}\n" for line in other)
    text = newer(tmp_path, role, "show", both).stdout
    assert tables(text) == apart
    assert len([line for line in text.splitlines() if line.startswith(" 16x8 ")]) == 2
    assert all(value in text for value in ("firmware", "1a", "2b"))


def test_a_baseline_of_before_a_column_is_found_and_each_of_its_values_gets_its_own(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    main(["baseline", "accept", str(run(tmp_path / "old", None)), "--to", str(kept)])
    (folder,) = kept.iterdir()
    for value, folders in (("1a", 1), ("2b", 2), ("1a", 2)):
        done = newer(
            tmp_path, "machine", "baseline", "accept", run(tmp_path / f"{value}{folders}", value), "--to", kept
        )
        assert ("6 equivalent" in done.stdout) == (value == "1a")
        assert len(list(kept.iterdir())) == folders
    assert folder.exists()
