"""pytest-benchmark's JSON is compared as runs are: a file is a launch, and nothing in it is believed unread."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT
from launching import own_environment

from reports.cli import main
from reports.verdicts import pytest_benchmark

SPREAD = [0.002, -0.001, 0.0, 0.001, -0.002]
MACHINE = {
    "node": "tower",
    "python_version": "3.11.7",
    "cpu": {"brand_raw": "AMD EPYC"},
    "resbench": {"host": "tower", "device_name": "NVIDIA H100", "device_count": 1, "torch": "2.9.0", "threads": 4},
}


def launch(name: str = "test_a.py::test_step", median: float = 0.01, **extra: Any) -> dict[str, Any]:
    each = {"fullname": name, "stats": {"median": median}, "extra_info": extra}
    commit = {"id": "0123456789abcdef"}
    return {"datetime": "2026-01-01T00:00:00", "commit_info": commit, "machine_info": MACHINE, "benchmarks": [each]}


def save(folder: Path, *launches: dict[str, Any]) -> Path:
    folder.mkdir()
    for number, each in enumerate(launches):
        each["datetime"] = f"2026-01-01T00:{number:02}:00+00:00"
        (folder / f"{number}.json").write_text(json.dumps({**each, "number": f"{folder.name}{number}"}))
    return folder


def told(base: Path, head: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(base), str(head)])
    printed = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, printed.out, printed.err


@pytest.mark.parametrize(
    ("factor", "code", "said"), [(1.0, 0, "equivalent"), (1.05, 1, "regressed"), (0.9, 0, "improved")]
)
def test_several_files_each_are_launches(
    factor: float, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = save(tmp_path / "base", *[launch(median=0.01 * (1 + share)) for share in SPREAD])
    head = save(tmp_path / "head", *[launch(median=0.01 * factor * (1 + share)) for share in SPREAD[::-1]])
    ended, out, _ = told(base, head, capsys)
    assert ended == code
    (line,) = [line for line in out.splitlines() if "test_a.py::test_step" in line]
    assert "step_time_p50_s" in line
    assert line.rstrip().endswith(said)


def test_one_file_each_tells_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, head = save(tmp_path / "base", launch()), save(tmp_path / "head", launch(median=0.02))
    code, out, _ = told(base / "0.json", head / "0.json", capsys)
    assert code == 0
    assert out.startswith("1 inconclusive")


def test_memory_is_compared_where_it_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = save(tmp_path / "base", *[launch(peak_allocated_bytes=2**30)] * 3)
    head = save(tmp_path / "head", *[launch(peak_allocated_bytes=2**31)] * 3)
    code, out, _ = told(base, head, capsys)
    assert code == 1
    assert any("peak_allocated_bytes" in line and "regressed" in line for line in out.splitlines())


@pytest.mark.parametrize(
    ("info", "commit"),
    [
        ({"id": "0123456789abcdef", "dirty": False}, "0123456789ab"),
        ({"id": "0123456789abcdef", "dirty": True}, "0123456789ab-dirty"),
        ({"id": "unversioned", "dirty": False}, ""),
        ({"id": "unknown", "dirty": True}, ""),
    ],
)
def test_the_commit_is_as_in_trials_csv(info: dict[str, Any], commit: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "run", {**launch(), "commit_info": info})
    assert list(pytest_benchmark.trials([folder / "0.json"])["commit"]) == [commit]


# Files of other versions and of projects with hooks of their own

STATS = {"min": 0.008, "max": 0.012, "mean": 0.01, "stddev": 0, "rounds": 1, "median": 0.01, "iqr": 0.0, "q1": 0.01}
NODE = {"node": "tower", "processor": "", "machine": "x86_64", "python_version": "3.11.7", "system": "Linux"}
CPU_3_1 = {"vendor_id": "AuthenticAMD", "hardware": "unknown", "brand": "AMD EPYC"}
CPU_3_4 = {"python_version": "3.11.7.final.0 (64 bit)", "arch": "X86_64", "brand_raw": "AMD EPYC"}
NAIVE, AWARE = "2026-01-01T00:00:00.000001", "2026-01-01T00:00:00.000001+00:00"
OLD_COMMIT = {"id": "0123456789abcdef", "dirty": False}
NEW_COMMIT = {**OLD_COMMIT, "time": "2026-01-01", "author_time": "2026-01-01", "project": "a", "branch": "main"}
OLD_TEST = {"group": None, "name": "test_step[a-1]", "fullname": "test_a.py::test_step[a-1]", "params": {"a": 1}}
TEST = {**OLD_TEST, "param": "a-1", "extra_info": {}, "options": {"min_rounds": 1, "timer": "perf_counter"}}


def shaped(stats: dict[str, Any], test: dict[str, Any], when: str, cpu: object, commit: object) -> dict[str, Any]:
    info = {**NODE, **({"cpu": cpu} if cpu is not None else {})}
    tests = [{**test, "stats": stats}]
    return {"machine_info": info, "commit_info": commit, "benchmarks": tests, "datetime": when, "version": "x"}


# As plugin.py, session.py and stats.py of each version write it; the data are left out as --benchmark-save does.
VERSIONS = {
    "3.0": (shaped(STATS, OLD_TEST, NAIVE, None, OLD_COMMIT), None),
    "3.1": (shaped({**STATS, "ops": 100}, TEST, NAIVE, CPU_3_1, NEW_COMMIT), "AMD EPYC"),
    "3.1, CPU unknown": (shaped(STATS, TEST, NAIVE, {**CPU_3_1, "brand": "unknown"}, NEW_COMMIT), None),
    "3.4": (shaped({**STATS, "total": 0.01}, TEST, NAIVE, CPU_3_4, NEW_COMMIT), "AMD EPYC"),
    "4, ARM": (shaped({**STATS, "total": 0.01}, TEST, NAIVE, {"arch": "ARM_8"}, NEW_COMMIT), None),
    "5": (shaped({**STATS, "total": 0.01, "data": [0.01]}, TEST, AWARE, CPU_3_4, NEW_COMMIT), "AMD EPYC"),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_s_file_is_read(version: str, tmp_path: Path) -> None:
    content, cpu_model = VERSIONS[version]
    (tmp_path / "a.json").write_text(json.dumps(content))
    (row,) = pytest_benchmark.launch(tmp_path / "a.json", 0)
    assert (row["host"], row["torch"], row["cpu_model"]) == ("tower", "none, Python 3.11.7", cpu_model)
    assert (row["commit"], row["started_at"]) == ("0123456789ab", AWARE)
    assert (row["arm"], row["step_time_p50_s"]) == ("test_a.py::test_step[a-1]", 0.01)


@pytest.mark.parametrize("info", ["gone", None, {}, {"user": "me"}])
def test_a_machine_that_the_file_does_not_say_is_not_comparable(
    info: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {**launch(), "machine_info": info}
    if info == "gone":
        del found["machine_info"]
    (row,) = pytest_benchmark.launch(save(tmp_path / "one", found) / "0.json", 0)
    assert (row["host"], row["torch"], row["cpu_model"]) == (None, None, None)
    code, out, _ = told(save(tmp_path / "base", *[found] * 3), save(tmp_path / "head", *[found] * 3), capsys)
    assert code == 3
    assert "host is not known; torch is not known" in out


@pytest.mark.parametrize("info", ["gone", None, {}, {"dirty": True}, {"id": None}])
def test_a_commit_that_the_file_does_not_say_is_unknown(info: Any, tmp_path: Path) -> None:
    found = {**launch(), "commit_info": info}
    if info == "gone":
        del found["commit_info"]
    (row,) = pytest_benchmark.launch(save(tmp_path / "one", found) / "0.json", 0)
    assert row["commit"] == ""


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    for name, encoding in (("a", "utf-8-sig"), ("b", "utf-16")):
        (tmp_path / f"{name}.json").write_text(json.dumps(launch()), encoding=encoding)
        assert len(pytest_benchmark.launch(tmp_path / f"{name}.json", 0)) == 1


def test_parametrised_benchmarks_are_trials_of_their_own(tmp_path: Path) -> None:
    names = [f"test_a.py::test_step[{each}]" for each in ("a-1", "a-2", "\u00e4 b", "a/b::c", "")]
    content = {**launch(), "benchmarks": [each for name in names for each in launch(name)["benchmarks"]]}
    table = pytest_benchmark.trials([save(tmp_path / "run", content) / "0.json"])
    assert list(table["arm"]) == names
    assert table["launch_id"].nunique() == len(names)


def twice(*medians: float, **extra: Any) -> dict[str, Any]:
    tests = [each for median in medians for each in launch(median=median, **extra)["benchmarks"]]
    return {**launch(), "benchmarks": tests}


def test_a_name_that_stands_there_several_times_is_one_launch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "run", twice(0.03, 0.01, 0.02, peak_allocated_bytes=5)) / "0.json"
    (row,) = pytest_benchmark.launch(path, 0)
    assert (row["step_time_p50_s"], row["peak_allocated_bytes"]) == (0.02, 5)
    # Five times in one file tell no more than once: how launches differ is not known.
    base = save(tmp_path / "base", twice(*(0.01 * (1 + share) for share in SPREAD)))
    head = save(tmp_path / "head", twice(*(0.02 * (1 + share) for share in SPREAD)))
    code, out, _ = told(base, head, capsys)
    assert (code, out.splitlines()[0]) == (0, "1 inconclusive")


def test_a_name_with_two_counts_in_one_file_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {**launch(), "benchmarks": [launch(flops_per_window=n)["benchmarks"][0] for n in (1, 2)]}
    code, _, err = told(save(tmp_path / "base", launch()), save(tmp_path / "head", content), capsys)
    assert code == 2
    assert "it has test_a.py::test_step 2 times, with unlike flops_per_window" in err


# Files of launch gate --pytest


def in_turns(pair: int, factor: float, side: str) -> dict[str, Any]:
    """A launch whose rounds took turns on a machine that gets slower, each launch at another rate, and noisy."""
    drift = {turn: 0.01 * (1 + turn * (pair + 1) / 10) for turn in range(1, 11)}
    times = {str(turn): factor * each for turn, each in drift.items()}
    turns = {"launch_id": f"{side}{pair}", "with": [f"{'head' if side == 'base' else 'base'}{pair}"]}
    extra: dict[str, Any] = {"step_cpu_time_p50_s": 0.01, "turns": {**turns, "step_time_s": times, "cpu_time_s": times}}
    noisy = 0.01 * (pair + 1 if side == "base" else 5 - pair)
    return {**launch(median=noisy, **extra), "resbench": {"pair": pair, "failed": []}}


@pytest.mark.parametrize(("factor", "code", "said"), [(1.0, 0, "equivalent"), (1.05, 1, "regressed")])
def test_neighbouring_turns_are_compared_not_medians(
    factor: float, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = save(tmp_path / "base", *[in_turns(pair, 1.0, "base") for pair in range(4)])
    head = save(tmp_path / "head", *[in_turns(pair, factor, "head") for pair in range(4)])
    ended, out, _ = told(base, head, capsys)
    assert ended == code, out
    lines = [line for line in out.splitlines() if "test_a.py::test_step" in line]
    assert [line.split()[2] for line in lines] == ["step_time_p50_s", "step_cpu_time_p50_s"]
    assert all(line.rstrip().endswith(said) for line in lines)
    assert all(f"{100 * (factor - 1):+.2f}" in line for line in lines)


@pytest.mark.parametrize(("failed", "code"), [((0, 1), 1), ((1, 1), 0), ((1, 0), 0)])
def test_failing_more_often_is_a_regression(
    failed: tuple[int, int], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for side, fails in zip(("base", "head"), failed, strict=True):
        each = [in_turns(pair, 1.0, side) for pair in range(4)]
        error = {"fullname": "test_a.py::test_step", "error": "ValueError: \x1b[31mx"}
        nothing = {**launch(), "benchmarks": [], "machine_info": {}, "resbench": {"pair": 4, "failed": [error]}}
        folders.append(save(tmp_path / side, *each, *([nothing] * fails)))
    ended, out, _ = told(folders[0], folders[1], capsys)
    assert ended == code, out
    shown = "1 of 5 launches in HEAD failed, 0 of 4 in BASE; crashed: ValueError: ?[31mx" in out
    assert shown == (failed == (0, 1))


# The exact gate

COUNTED: dict[str, Any] = {
    "flops_per_window": 10**12,
    "operations_per_window": 3,
    "operation_kinds": "add 1, convolution 2",
}


def gate(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Its exit code and what it says, against the baseline beside the run."""
    with pytest.raises(SystemExit) as ended:
        main(["gate", "exact", str(run), str(run.parent / "steps.csv")])
    assert isinstance(ended.value.code, int)
    printed = capsys.readouterr()
    return ended.value.code, printed.out + printed.err


def test_a_step_that_is_gone_from_some_files_and_a_copy_are_no_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = {**on_a_cpu(), "benchmarks": launch("test_a.py::test_other", **COUNTED)["benchmarks"]}
    code, said = gate(save(tmp_path / "gone", on_a_cpu(), on_a_cpu(), gone, {**gone}), capsys)
    assert code == 2
    assert "test_a.py::test_step is in 2 of 4 files; give a folder with those of one commit" in said
    copied = save(tmp_path / "copied", on_a_cpu())
    (copied / "copy.json").write_bytes((copied / "0.json").read_bytes())
    code, said = gate(copied, capsys)
    assert code == 2
    assert "was counted once" in said


def test_counts_that_were_put_right_leave_none_to_accept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = save(tmp_path / "sound", on_a_cpu(), on_a_cpu())
    gate(sound, capsys)
    main(["baseline", "accept", str(tmp_path / "steps.csv")])
    assert gate(save(tmp_path / "other", on_a_cpu(flops_per_window=1), on_a_cpu(flops_per_window=1)), capsys)[0] == 1
    assert (tmp_path / "steps.csv.new").exists()
    assert gate(sound, capsys)[0] == 0
    assert not (tmp_path / "steps.csv.new").exists()


def on_a_cpu(**extra: Any) -> dict[str, Any]:
    """A launch of a step that is counted and of a benchmark that is none."""
    found = launch(**{**COUNTED, **extra})
    machine = {**MACHINE, "resbench": {**MACHINE["resbench"], "device_name": "cpu"}}  # type: ignore[dict-item]
    return {
        **found,
        "machine_info": machine,
        "benchmarks": [*found["benchmarks"], *launch("test_a.py::b")["benchmarks"]],
    }


def test_counts_are_held_against_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = save(tmp_path / "sound", on_a_cpu(), on_a_cpu())
    assert gate(sound, capsys)[0] == 3
    main(["baseline", "accept", str(tmp_path / "steps.csv")])
    capsys.readouterr()
    assert gate(sound, capsys) == (0, f"4 counts are those of {tmp_path / 'steps.csv'}\n")
    os.mkfifo(sound / "pipe.json")  # nobody will ever write to it
    assert gate(sound, capsys)[0] == 0
    kinds = "add 2, convolution 2"
    code, said = gate(save(tmp_path / "more", *[on_a_cpu(operation_kinds=kinds) for _ in range(2)]), capsys)
    assert code == 1
    assert "  pytest-benchmark test_a.py::test_step: operation_kinds add 1 -> 2\n" in said


@pytest.mark.parametrize(
    ("launches", "said"),
    [
        ([on_a_cpu()], "pytest-benchmark test_a.py::test_step was counted once; give two of pytest's files"),
        ([on_a_cpu(), on_a_cpu(flops_per_window=1)], "two counts of one trial differ"),
        ([launch(**COUNTED)] * 2, "ran on NVIDIA H100; exact counts are those of a CPU"),
        ([launch()] * 2, "no trial was counted in this run"),
        ([on_a_cpu(flops_per_window=1.5)] * 2, "1.5 is no count"),
        ([on_a_cpu(operations_per_window="3")] * 2, "'3' is no count"),
        ([on_a_cpu(operations_per_window=-1)] * 2, "-1 is no count"),
        ([on_a_cpu(operations_per_window=10**400)] * 2, "00 is no count"),
        ([on_a_cpu(operation_kinds="add -1")] * 2, "'add -1' is none"),
        ([on_a_cpu(operation_kinds="add 1, add 2")] * 2, "'add 2' is none"),
        ([on_a_cpu(operation_kinds={"add": 1})] * 2, "is none; count it anew"),
        ([{**on_a_cpu(), "benchmarks": launch(median=10**400)["benchmarks"]}] * 2, "OverflowError"),
        ([on_a_cpu(), on_a_cpu(flops_per_window=1), on_a_cpu(flops_per_window=1)], "two counts of one trial differ"),
        ([on_a_cpu(), on_a_cpu(), launch("test_a.py::test_new")], "test_a.py::test_step is in 2 of 3 files"),
    ],
)
def test_what_was_not_counted_is_no_answer(
    launches: list[dict[str, Any]], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = gate(save(tmp_path / "run", *launches), capsys)
    assert (code, told.count("\n")) == (2, 1)
    assert said in told
    assert list(tmp_path.glob("steps.csv*")) == []


# Comparing


def test_a_benchmark_that_is_gone_and_another_machine_are_not_comparable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, gone = save(tmp_path / "base", launch()), save(tmp_path / "gone", launch("test_a.py::test_new"))
    assert told(base, gone, capsys)[0] == 3
    other = launch()
    other["machine_info"] = {**MACHINE, "resbench": {**MACHINE["resbench"], "device_name": "NVIDIA A100"}}  # type: ignore[dict-item]
    code, out, _ = told(base, save(tmp_path / "other", other), capsys)
    assert code == 3
    assert "device_name NVIDIA H100 against NVIDIA A100" in out


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps(launch(median=float("nan"))),
        json.dumps(launch(median=-1.0)),
        json.dumps(launch(median="fast")),  # type: ignore[arg-type]
        json.dumps({**launch(), "machine_info": ["tower"]}),
        json.dumps({**launch(), "benchmarks": {"a": 1}}),
        json.dumps({**launch(), "benchmarks": []}),
        json.dumps({**launch(), "datetime": "yesterday"}),
        json.dumps({**launch(), "resbench": {"pair": -1}}),
        json.dumps({**launch(), "resbench": {"failed": ["a"]}}),
        json.dumps(launch(turns={"launch_id": "a"})),
        json.dumps(launch(turns={"launch_id": "a", "with": [], "step_time_s": {"first": 1}})),
        json.dumps(launch(turns={"launch_id": "a", "with": [], "step_time_s": {"1": "fast"}})),
        "\0\xff",
    ],
    ids=[
        "empty",
        "list",
        "object",
        "nested",
        "NaN",
        "negative",
        "text",
        "no machine",
        "no list",
        "no benchmark",
        "no date",
        "no pair",
        "no test",
        "no partner",
        "no turn",
        "no time",
        "binary",
    ],
)
def test_what_is_none_of_its_files_is_one_sentence(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = save(tmp_path / "base", launch())
    (tmp_path / "head.json").write_text(content)
    code, out, err = told(base, tmp_path / "head.json", capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {tmp_path / 'head.json'} is no JSON of pytest-benchmark: ")


def test_names_give_the_terminal_no_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "test_a.py::test[\x1b[31mred[/]\x07]"
    base, head = save(tmp_path / "base", launch(name)), save(tmp_path / "head", launch(name))
    _, out, _ = told(base, head, capsys)
    assert [letter for letter in out if ord(letter) < 32 and letter != "\n"] == []


def test_the_example_of_the_docs_runs_and_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        (CHECKOUT / "docs" / "own-project.md")
        .read_text()
        .partition("<!-- example: begin -->")[2]
        .partition("<!-- example: end -->")[0]
    )
    code, commands = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "test_step.py").write_text(code)
    export, make, *lines = commands.replace("\\\n", " ").splitlines()
    assert export.startswith("export PYTHONPATH=")
    subprocess.run(make.split(), cwd=tmp_path, check=True)
    for line in lines:
        words = [sys.executable, "-m", *line.split()]
        done = subprocess.run(words, cwd=tmp_path, env=own_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "after" / "1.json").read_text())
    extra = found["benchmarks"][0]["extra_info"]
    # Two for each multiply-add: forward and the weights' gradients of both, and the matrix's input's.
    convolution, matrix = 16 * 2 * 8 * 27 * 30 * 30, 16 * 2 * 7200 * 10
    assert extra["flops_per_window"] == 2 * convolution + 3 * matrix
    assert (extra["casts_per_window"], extra["waits_per_window"]) == (0, 0)
    assert extra["peak_bytes_per_window"] > 16 * 7200 * 4
    assert found["machine_info"]["resbench"]["torch"]
    code_of, out, _ = told(tmp_path / "before", tmp_path / "after", capsys)
    assert code_of == 0
    assert "1 inconclusive" in out
    (both := tmp_path / "both").mkdir()
    for folder in ("before", "after"):
        (tmp_path / folder).rename(both / folder)
    code_of, said = gate(both, capsys)
    assert code_of == 3, said  # counted twice, alike, and no baseline yet
