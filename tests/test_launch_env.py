"""`python -m launch env` says what can be measured here and, of the rest, why not: all of it, and truly."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from launching import python

from bench import environment
from bench.columns import FILES, Column, probe_modules
from bench.probes import memory, timing
from launch import env

COLUMNS = {(m.__name__, c.name) for m in probe_modules() for file in FILES for c in getattr(m, file.upper(), ())}


def answers(**variables: str | None) -> dict[str, str]:
    """Column -> what the command says of it."""
    done = python("-m", "launch", "env", env={"COLUMNS": "30", **variables})
    assert (done.returncode, done.stderr) == (0, "")
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if "│" in line]
    assert len(rows) == len(COLUMNS)
    return {row[1]: row[3] for row in rows}


def test_every_column_of_every_probe_is_answered_for_once() -> None:
    assert set(answers()) == {name for _, name in COLUMNS}


def test_without_nvidia_s_library_that_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is looked for where a damaged one lies, so that the machine's own is not found."""
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"no library at all")
    found = answers(LD_LIBRARY_PATH=str(tmp_path), ACCELERATE_USE_CPU=None)
    torch = environment.version("torch") or ""
    why = f"torch {torch} is built without CUDA" if torch.endswith("+cpu") else "no libnvidia-ml.so.1"
    for name in ("energy_j", "peak_device_bytes", "other_processes", "peak_allocated_bytes"):
        assert found[name] == f"needs a CUDA device: {why}"
    assert {found[name] for name in ("images_per_s", "train_loss", "step_time_s")} == {"yes"}


def test_a_cpu_that_was_asked_for_is_the_reason() -> None:
    assert answers(ACCELERATE_USE_CPU="true")["energy_j"] == "needs a CUDA device: ACCELERATE_USE_CPU is set"


def test_a_peak_that_the_kernel_does_not_forget_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "forget_peak_rss", lambda: False)
    assert memory.unreadable()["peak_rss_bytes"].endswith("/proc/self/clear_refs is not writable")
    monkeypatch.setattr(memory, "peak_rss_bytes", lambda: None)
    assert memory.unreadable()["peak_rss_bytes"] == "no VmHWM in /proc/self/status"


@pytest.mark.parametrize(
    ("variables", "torch", "gpus", "trouble", "why"),
    [
        ({}, "2.9.0", 1, None, None),
        ({}, "2.9.0", 0, None, "NVML sees none"),
        ({}, "2.9.0", None, "no libnvidia-ml.so.1", "no libnvidia-ml.so.1"),
        ({}, "2.9.0+cpu", 1, None, "torch 2.9.0+cpu is built without CUDA"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "2.9.0", 1, None, "CUDA_VISIBLE_DEVICES hides every GPU"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "2.9.0", 1, None, None),
        ({"ACCELERATE_USE_CPU": "yes"}, "2.9.0", 1, None, "ACCELERATE_USE_CPU is set"),
    ],
)
def test_why_a_trial_finds_no_cuda_device(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    torch: str,
    gpus: int | None,
    trouble: str | None,
    why: str | None,
) -> None:
    for name in ("ACCELERATE_USE_CPU", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(environment, "version", lambda package: torch)
    monkeypatch.setattr(environment, "is_jetson", lambda: False)
    monkeypatch.setattr(environment.nvml, "device_count", lambda: gpus)
    monkeypatch.setattr(environment.nvml, "trouble", lambda: trouble)
    assert environment.why_no_cuda() == why
    monkeypatch.setattr(environment, "is_jetson", lambda: True)
    if not variables and not torch.endswith("+cpu"):
        assert environment.why_no_cuda() is None


def test_a_new_probe_is_answered_for_without_being_known() -> None:
    column = Column("quanta", "int", "", "", "")
    module = SimpleNamespace(TRIALS=[column], EPOCHS=[column], STEPS=[])
    assert env.columns_of(module) == [column]
    assert {c.name for c in env.columns_of(timing)} == {name for m, name in COLUMNS if m == timing.__name__}


def test_help_and_the_list_of_commands_name_it() -> None:
    assert "launch env" in python("-m", "launch", "--help").stdout
    assert re.search(r"choose from: .*env", python("-m", "launch", "lst").stderr)
