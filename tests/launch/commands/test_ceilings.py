"""launch ceilings: what it refuses, through a real group, and what it prints of rows that are known."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from conftest import Launch
from launching import is_one_error, python

from bench.errors import UsageError
from bench.machine import environment
from bench.record.run_folder import RunFolder
from launch import cli
from launch.commands import ceilings
from launch.group import accelerate_command
from launch.group.accelerate_command import Work

MACHINE = {**environment.machine(), "device_name": "NVIDIA H100 80GB HBM3", "device_count": 2}


def ran(words: list[str]) -> int:
    """The exit code of the command with these words."""
    return ceilings.run(cli.parser("ceilings").parse_args(words))


def product(rank: int, seconds: float, **more: Any) -> dict[str, Any]:
    """A product of 1e9 FLOPs in this time, quartiles 1% around it."""
    times = {"call_time_p25_s": seconds * 0.99, "call_time_p50_s": seconds, "call_time_p75_s": seconds * 1.01}
    work = {"kind": "matrix_product", "work": "8 x 8", "number_format": "bf16", "call_flops": 10**9}
    return {"launch_id": "c", "rank": rank, **MACHINE, **work, **times, "flops_per_s": 1e9 / seconds, **more}


def test_a_folder_of_another_machine_is_refused_by_the_group_before_it_measures(launch: Launch, tmp_path: Path) -> None:
    RunFolder(tmp_path).append("ceilings", [product(0, 0.001, host="elsewhere")])
    before = (tmp_path / "ceilings.csv").read_text()
    done = launch("ceilings", "--processes", "1", "--out", str(tmp_path))
    assert done.returncode == 2, done.stderr
    note, error = done.stderr.splitlines()
    assert note == "measuring on the CPU, with 1 process(es); about a minute"
    assert error.startswith(f"error: --out {tmp_path} has rows of elsewhere NVIDIA H100 80GB HBM3")
    assert f"and this is {socket.gethostname()} cpu" in error
    assert (tmp_path / "ceilings.csv").read_text() == before
    assert [path.suffix for path in (tmp_path / "logs").iterdir() if path.name[0] != "."] == [".log"]


def test_a_group_that_fails_names_its_log(launch: Launch, tmp_path: Path) -> None:
    """The starter runs any module; this one is not there, so that the launcher ends with a code."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(ceilings, "Work", lambda module, words: Work("bench.no_such_module", words))
        done = launch("ceilings", "--processes", "1", "--out", str(tmp_path))
    assert done.returncode == 70
    said = done.stderr.splitlines()[-1]
    assert said.startswith("error: the measurement ended without a result; see ")
    assert "No module named bench.no_such_module" in Path(said.rpartition(" ")[2]).read_text()
    assert not (tmp_path / "ceilings.csv").exists()


def test_what_there_is_not_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = python("-m", "launch", "ceilings", "--out", str(tmp_path / "new"), "--against", str(tmp_path))
    assert is_one_error(done), done.stderr
    assert f"no rows in {tmp_path / 'ceilings.csv'} for --against" in done.stderr
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(accelerate_command, "gpu_count", lambda: 2)
    with pytest.raises(UsageError, match="--processes is 3 but this machine has 2 GPU"):
        ran(["--processes", "3", "--out", str(tmp_path / "new")])
    with pytest.raises(UsageError, match="processes"):
        ran(["--processes", "0", "--out", str(tmp_path / "new")])


@pytest.mark.parametrize("damage", ["", "seconds", "nan", "cut"])
def test_a_damaged_row_to_compare_with_is_refused_before_measuring(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunFolder(tmp_path).append("ceilings", [product(0, 0.001), product(1, 0.125)])
    path = tmp_path / "ceilings.csv"
    text = path.read_text()
    assert text.count(",0.125,") == 1
    path.write_text(text.partition(",0.125,")[0] + "\n" if damage == "cut" else text.replace(",0.125,", f",{damage},"))
    monkeypatch.setattr(ceilings, "measure", lambda *_: pytest.fail("it measured"))
    no_number = f"row 2 of {path} for --against has a time that is no number"
    said = f"{path} for --against has 1 lines that are no rows" if damage == "cut" else no_number
    with pytest.raises(UsageError, match=said):
        ran(["--processes", "1", "--out", str(tmp_path / "new"), "--against", str(tmp_path)])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("second", "code"), [(0.001 / 0.9, 1), (0.001, 0)])
def test_the_devices_of_a_machine_are_compared_with_each_other_and_with_others(
    second: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    RunFolder(there).append("ceilings", [product(0, 0.001, host="there", launch_id="d")])

    def measure(context: Any, trial: Any, launch_id: str) -> str:
        rows = [product(0, 0.001, launch_id=launch_id), product(1, second, launch_id=launch_id)]
        RunFolder(here).append("ceilings", rows)
        return ""

    monkeypatch.setattr(ceilings, "measure", measure)
    assert ran(["--out", str(here), "--against", str(there)]) == code
    printed = capsys.readouterr().out
    assert ("takes 11.1% longer for a matrix product in bf16 than the other 2" in printed) == (code == 1)
    (line,) = [line.split() for line in printed.splitlines() if line.startswith(" matrix product")]
    slowest, fastest = 1e-3 / (second * 1.01), 1e-3 / (0.001 * 0.99)
    assert line[-4:] == ["2", "1", f"{slowest:.4g}..{fastest:.4g}", "TFLOP/s"]


def test_unlike_devices_have_lines_of_their_own_and_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(context: Any, trial: Any, launch_id: str) -> str:
        rows = [product(0, 0.001, launch_id=launch_id), product(1, 0.002, launch_id=launch_id, device_name="NVIDIA L4")]
        RunFolder(tmp_path).append("ceilings", rows)
        return ""

    monkeypatch.setattr(ceilings, "measure", measure)
    assert ran(["--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines() if line.startswith(" matrix product")]
    assert [" ".join(line[5:-3]) for line in lines] == ["bf16 NVIDIA H100 80GB HBM3 1", "bf16 NVIDIA L4 1"]
    assert [line[-3] for line in lines] == ["1", "0.5"]
    assert "one NVIDIA L4 alone: compared with no other" in printed
