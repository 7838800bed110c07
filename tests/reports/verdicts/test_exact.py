"""The exact gate: one count more or less is found and named, and nothing is accepted that was not asked for."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT
from planted_rows import counted

from reports.cli import main

SETTINGS = "model=resnet20 image_size=32 micro_batch=4"


def gate(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["gate", "exact", *map(str, words)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """One that was accepted as the gate says."""
    path = tmp_path / "exact.csv"
    assert gate(counted(tmp_path / "first", {}, {"precision": "bf16"}), path) == 3
    said = capsys.readouterr().out
    assert f"{path} is not there" in said
    assert not path.exists()
    words = shlex.split(said.rpartition("if that is meant: ")[2])
    assert words[:3] == ["python", "-m", "reports"]
    main(words[3:])
    assert capsys.readouterr().out.endswith("counts now\n")
    assert [left.name for left in tmp_path.glob("exact.csv*")] == ["exact.csv"]
    return path


def test_a_baseline_is_a_line_for_each_count_in_order(baseline: Path) -> None:
    head, *lines = baseline.read_text().splitlines()
    assert head == "trial,metric,value"
    assert lines == sorted(lines)
    assert "all,torch,2.9.0" in lines
    assert (
        f"resnet20_accumulation 16x8 {SETTINGS} precision=bf16 processes=1 compile=none,flops_per_window,1000000000000"
        in lines
    )
    assert (
        f"resnet20_accumulation 16x8 {SETTINGS} precision=no processes=1 compile=none,operation_kinds convolution,2"
        in lines
    )
    assert len(lines) == 1 + 2 * 8


def test_equal_counts_pass_and_write_nothing(
    baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    assert gate(counted(tmp_path / "head", {"precision": "bf16"}, {}), baseline) == 0
    assert capsys.readouterr().out == f"16 counts are those of {baseline}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "head"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"flops_per_window": 10**12 + 1}, "flops_per_window 1000000000000 -> 1000000000001"),
        ({"flops_per_window": 10**12 - 1}, "flops_per_window 1000000000000 -> 999999999999"),
        ({"waits_per_window": 1}, "waits_per_window 0 -> 1"),
        ({"allreduces_per_window": 2}, "allreduces_per_window new: 2"),
        ({"trainable_parameters": None}, "trainable_parameters missing: was 272474"),
        ({"operation_kinds": "_to_copy 1, convolution 3"}, "operation_kinds convolution 2 -> 3"),
        ({"operation_kinds": "_to_copy 1"}, "operation_kinds convolution missing: was 2"),
        ({"operation_kinds": "_to_copy 1, add 1, convolution 2"}, "operation_kinds add new: 1"),
    ],
)
def test_one_count_that_is_another_fails_and_is_named(
    change: dict[str, Any], said: str, baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = baseline.read_bytes()
    assert gate(counted(tmp_path / "head", {}, {"precision": "bf16", **change}), baseline) == 1
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("1 of ")
    assert head.endswith(f"if that is meant: python -m reports baseline accept {baseline}")
    assert lines == [f"  resnet20_accumulation 16x8 {SETTINGS} precision=bf16 processes=1 compile=none: {said}"]
    assert baseline.read_bytes() == before


def test_a_trial_that_is_gone_or_new_fails(baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [{}, {"precision": "bf16"}, {"arm": "64x2"}]
    assert gate(counted(tmp_path / "more", *changes), baseline) == 1
    assert (
        f"resnet20_accumulation 64x2 {SETTINGS} precision=no processes=1 compile=none: flops_per_window new"
        in capsys.readouterr().out
    )
    assert gate(counted(tmp_path / "less", {"precision": "bf16"}), baseline) == 1
    assert (
        f"resnet20_accumulation 16x8 {SETTINGS} precision=no processes=1 compile=none: flops_per_window missing"
        in capsys.readouterr().out
    )


def test_a_baseline_from_before_compile_was_a_mode_still_holds(
    baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline.write_text(baseline.read_text().replace("compile=none", "compile=False"))
    assert gate(counted(tmp_path / "head", {}, {"precision": "bf16"}), baseline) == 0
    assert gate(counted(tmp_path / "other", {}, {"precision": "bf16", "compile": "default"}), baseline) == 1


def test_another_torch_is_not_comparable(baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(counted(tmp_path / "head", {"torch": "2.10.0", "flops_per_window": 7}), baseline) == 3
    said = capsys.readouterr().out
    assert said.startswith(f"not comparable: {baseline} is of torch 2.9.0, the run of torch 2.10.0; ")
    assert "flops" not in said


@pytest.mark.parametrize(
    ("changes", "times", "said"),
    [
        ([{}], 1, "was counted once; give --repeats 2"),
        ([{"flops_per_window": 1}, {"flops_per_window": 2}], 1, "two counts of one trial differ, "),
        ([{"operation_kinds": None}], 2, "was not counted; give --warmup-windows 3 or more"),
        ([{"status": "crashed", "error": "boom"}], 2, "ended as crashed (boom)"),
        ([{"device_name": "NVIDIA H100"}], 2, "ran on NVIDIA H100; exact counts are those of a CPU"),
        ([{}, {"torch": "2.10.0", "precision": "bf16"}], 2, "rows of torch 2.10.0 and 2.9.0"),
    ],
)
def test_what_was_not_counted_twice_alike_is_no_answer(
    changes: list[dict[str, Any]],
    times: int,
    said: str,
    baseline: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gate(counted(tmp_path / "head", *changes, times=times), baseline) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert said in printed.err
    assert printed.out == ""


def test_earlier_and_interrupted_counts_do_not_matter(baseline: Path, tmp_path: Path) -> None:
    old = {"precision": "bf16", "flops_per_window": 7}
    stopped = {"precision": "bf16", "status": "interrupted", "operation_kinds": None}
    assert gate(counted(tmp_path / "head", old, {"precision": "bf16"}, stopped, {}), baseline) == 0


def test_the_same_torch_of_another_index_is_comparable(baseline: Path, tmp_path: Path) -> None:
    assert (
        gate(counted(tmp_path / "head", {"torch": "2.9.0+cpu"}, {"torch": "2.9.0+cpu", "precision": "bf16"}), baseline)
        == 0
    )


def test_a_baseline_that_says_two_things_is_refused(
    baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline.write_text(baseline.read_text() + baseline.read_text().splitlines()[-1] + "1\n")
    assert gate(counted(tmp_path / "head"), baseline) == 2
    assert "has a trial's metric twice" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "a,b\n", "trial,metric,value\nx,y\n", "\x00", "x" * 200_000])
def test_a_baseline_that_is_none_is_named(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "exact.csv"
    path.write_text(text)
    assert gate(counted(tmp_path / "head"), path) == 2
    assert f"error: {path} is no baseline" in capsys.readouterr().err
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gate"], "required: tier, RUN"),
        (["gate", "exact"], "required: RUN"),
        (["gate", "fast", "a"], "tier is 'fast'; choose from: exact"),
        (["gate", "exact", "a", "b", "c"], "unrecognized arguments: c"),
        (["gate", "exact", "nowhere"], "no nowhere/trials.csv"),
    ],
)
def test_what_cannot_be_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert printed.err.startswith("error: ")
    assert said in printed.err


# What differs, until somebody accepts it


def test_what_differs_is_shown_and_accepted_and_nothing_else(
    baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = baseline.read_text()
    assert gate(counted(tmp_path / "head", {"flops_per_window": 7}, {"precision": "bf16"}), baseline) == 1
    capsys.readouterr()
    main(["baseline", "show", str(baseline)])
    (shown,) = capsys.readouterr().out.splitlines()
    assert shown.endswith("flops_per_window 1000000000000 -> 7")
    assert baseline.read_text() == before
    main(["baseline", "accept", str(baseline)])
    assert capsys.readouterr().out.splitlines()[0] == shown
    assert baseline.read_text() == before.replace(
        "precision=no processes=1 compile=none,flops_per_window,1000000000000",
        "precision=no processes=1 compile=none,flops_per_window,7",
    )
    with pytest.raises(SystemExit) as ended:
        main(["baseline", "accept", str(baseline)])
    assert ended.value.code == 2
    assert f"error: no {baseline}.new" in capsys.readouterr().err


def test_a_run_that_failed_leaves_nothing_to_accept(
    baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {"precision": "bf16", "status": "crashed", "error": "killed"}
    assert gate(counted(tmp_path / "head", {"flops_per_window": 7}, failed), baseline) == 2
    assert not baseline.with_name("exact.csv.new").exists()


def test_counts_are_left_for_whoever_reads_the_first_line_alone(baseline: Path, tmp_path: Path) -> None:
    folder = counted(tmp_path / "head", *({"precision": p, "flops_per_window": 7} for p in ("no", "bf16")))
    command = [sys.executable, "-m", "reports", "gate", "exact", str(folder), str(baseline)]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.wait()
    assert ",flops_per_window,7" in baseline.with_name("exact.csv.new").read_text()
