"""`python -m launch env` says what can be measured here and, of the rest, why not: all of it, and truly."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import jetsons
import pytest
from launching import CONTAINER, plant, python
from vendors import CUDA, plant_torch

from bench.column import Column
from bench.machine import environment, rapl
from bench.probes import memory, probe_modules, timing
from bench.record.columns import FILES
from launch.commands import env

COLUMNS = {(m.__name__, c.name) for m in probe_modules() for file in FILES for c in getattr(m, file.upper(), ())}


def answers(**variables: str | None) -> dict[str, str]:
    """Column -> what the command says of it: yes, or the reason that its number stands for."""
    done = python("-m", "launch", "env", env=variables)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.partition("─ \n")[2]
    reasons = dict(re.findall(r"^  (\[\d+\]) (.+)$", lines, re.MULTILINE))
    rows = [line.split() for line in lines.splitlines() if re.search(r" (yes|no \[\d+\]) *$", line)]
    assert len(rows) == len(COLUMNS)
    return {row[1]: reasons.get(row[-1], row[-1]) for row in rows}


def test_every_column_of_every_probe_is_answered_for_once() -> None:
    assert set(answers()) == {name for _, name in COLUMNS}


def test_without_nvidia_s_library_that_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is looked for where a damaged one lies, so that the machine's own is not found."""
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"no library at all")
    found = answers(LD_LIBRARY_PATH=str(tmp_path), ACCELERATE_USE_CPU=None)
    torch = environment.version("torch") or ""
    why = f"torch {torch} is built without CUDA" if torch.endswith("+cpu") else "no libnvidia-ml.so.1"
    for name in ("device_utilisation", "peak_device_bytes", "other_processes", "peak_allocated_bytes"):
        assert found[name] == f"needs a CUDA device: {why}"
    assert {found[name] for name in ("images_per_s", "train_loss", "step_time_s")} == {"yes"}


def test_a_cpu_that_was_asked_for_is_the_reason() -> None:
    found, of_cpu = answers(ACCELERATE_USE_CPU="true"), rapl.why_not()
    assert found["device_utilisation"] == "needs a CUDA device: ACCELERATE_USE_CPU is set"
    assert found["energy_j"] == (f"{found['device_utilisation']}; of the CPU: {of_cpu}" if of_cpu else "yes")


def test_a_peak_that_the_kernel_does_not_forget_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "forget_peak_rss", lambda: False)
    assert memory.unreadable()["peak_rss_bytes"].endswith("/proc/self/clear_refs is not writable")
    monkeypatch.setattr(memory, "peak_rss_bytes", lambda: None)
    assert memory.unreadable()["peak_rss_bytes"] == "no VmHWM in /proc/self/status"


def test_a_commit_that_rows_will_lack_is_said_to_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    assert env.machine()[-1].startswith(f"commit: unknown: {tmp_path} is in no git repository; ")


def test_which_limit_holds_is_said_and_where_it_is_from(tmp_path: Path) -> None:
    plant(tmp_path, {"proc/meminfo": "MemTotal: 25165824 kB\nMemAvailable: 6291456 kB\n"})
    cpu, memory, *_ = env.machine(tmp_path)
    assert " (no control group has a quota) of " in cpu
    assert memory == "memory: 6.00 GiB free now (MemAvailable); limit of the control group: none"
    cpu, memory, *_ = env.machine(plant(tmp_path, CONTAINER))
    assert cpu.startswith("CPU: 1 (the control group's quota is 1.5 by /sys/fs/cgroup/cpu.max) of ")
    assert memory == (
        "memory: 1.05 GiB free now (control group, 1.30 GiB by /sys/fs/cgroup/memory.max); "
        "limit of the control group: 1.30 GiB by /sys/fs/cgroup/memory.max"
    )


WHY = """
import json, os, sys
from pathlib import Path
from bench.machine import gpus
for variables, _ in json.loads(sys.argv[2]):
    os.environ.update(variables)
    print(gpus.why_none(Path(sys.argv[1])))
    for name in variables:
        del os.environ[name]
"""
REASONS: list[tuple[dict[str, str], str]] = [
    ({"STANDIN_NVML": "1"}, "None"),
    ({"STANDIN_NVML": "0"}, "NVML sees none"),
    ({"STANDIN_NVML": "refuses"}, "NVML: Driver Not Loaded"),
    ({"STANDIN_NVML": "1", "CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES hides every GPU"),
    ({"STANDIN_NVML": "1", "CUDA_VISIBLE_DEVICES": "1"}, "CUDA_VISIBLE_DEVICES hides every GPU"),
    ({"STANDIN_NVML": "1", "CUDA_VISIBLE_DEVICES": "0"}, "None"),
    ({"STANDIN_NVML": "1", "ACCELERATE_USE_CPU": "yes"}, "ACCELERATE_USE_CPU is set"),
]


def test_why_a_trial_finds_no_gpu(standin_nvml: Path, tmp_path: Path) -> None:
    env = plant_torch(tmp_path / "torch", CUDA) | {"LD_LIBRARY_PATH": str(standin_nvml)}
    done = python("-c", WHY, str(tmp_path), json.dumps(REASONS), env=env)
    assert done.stdout.splitlines() == [why for _, why in REASONS], done.stderr
    board = jetsons.plant(tmp_path / "jetson", jetsons.ORIN_NANO)
    done = python("-c", WHY, str(board), json.dumps(REASONS[2:3]), env=env)
    assert done.stdout == "None\n", done.stderr


def test_a_new_probe_is_answered_for_without_being_known() -> None:
    column = Column("quanta", "int", "", "", "")
    module = SimpleNamespace(TRIALS=[column], EPOCHS=[column], STEPS=[])
    assert env.columns_of(module) == [column]
    assert {c.name for c in env.columns_of(timing)} == {name for m, name in COLUMNS if m == timing.__name__}


def test_help_and_the_list_of_commands_name_it() -> None:
    assert "\n  env " in python("-m", "launch", "--help").stdout
    assert re.search(r"choose from: .*env", python("-m", "launch", "lst").stderr)
