"""The main experiments on stand-in GPUs, and under a limit on memory; in all precisions: tests/STANDIN.md."""

from __future__ import annotations

import pytest
from conftest import Launch
from launching import python
from standin_cuda import __main__ as command_line
from standin_cuda import trials
from standin_cuda.standin import Standin
from standin_cuda.trials import Found


@pytest.fixture(scope="module")
def found(standin_cuda: Standin, launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Each in float32 on one GPU and on two, and under a limit on one."""
    return trials.on(standin_cuda, tmp_path_factory.mktemp("trials"), "no", (1, 2), (1,), launch)


@pytest.mark.timeout(600)
def test_the_main_experiments_run_on_one_gpu_and_two_with_the_cpus_results(found: Found) -> None:
    """Losses and accuracy to the last digit, and no cell empty that torch, NVML or the CPU's row knows."""
    compared, _ = found
    assert [(each.row["experiment"], each.row["processes"]) for each in compared] == [
        (name, processes) for name in trials.ARMS for processes in "12"
    ]
    assert {each.row["backend"] for each in compared if each.row["processes"] == "2"} == {"nccl"}
    assert [each.problems for each in compared] == [[]] * 6


def test_what_torch_takes_is_of_what_the_device_has_and_power_is_drawn(found: Found) -> None:
    for row in (each.row for each in found[0]):
        assert row["device_name"] == "Stand-in GPU (no hardware)"
        assert 0 < int(row["peak_allocated_bytes"]) <= int(row["peak_reserved_bytes"]) < int(row["peak_device_bytes"])
        assert float(row["mean_power_w"]) > 0


def test_too_little_memory_is_oom_with_phase_and_bytes_and_the_next_trial_is_ok(found: Found) -> None:
    _, under = found
    assert len(under) == 6
    assert trials.limited(under) == []


def test_problems_are_found() -> None:
    """A row that has none, and each kind of one."""
    good = dict.fromkeys((*trials.KNOWN, *trials.RESULTS), "1") | {"status": "ok", "precision": "no"}
    assert trials.problems(good, good) == []
    assert trials.problems(good | {"status": "oom", "error": "why"}, good) == ["oom: why"]
    assert trials.problems(good | {"energy_j": ""}, good) == ["energy_j is empty"]
    assert trials.problems(good | {"train_loss": "1.01"}, good) == ["train_loss is 1.01, the CPU's 1"]
    assert trials.problems(good | {"train_loss": "1.01", "precision": "bf16"}, good) == []
    fp16 = good | {"train_loss": "1.1", "precision": "fp16"}
    assert trials.problems(fp16 | {"skipped_steps": "0"}, good) == ["train_loss is 1.1000, the CPU's 1.0000"]
    assert trials.problems(fp16 | {"skipped_steps": "2"}, good) == []


def test_the_stand_in_runs_a_command(
    standin_cuda: Standin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which builds it again; without a command, the variables for a shell."""
    ask = "import os; print(os.environ['STANDIN_CUDA'], 'ACCELERATE_USE_CPU' in os.environ)"
    words = ["--capability", "8.7", "--gib", "0.5", "2"]
    done = python("-m", "tests.standin_cuda", *words, "python3", "-c", ask)
    assert done.stdout == "2 False\n", done.stderr
    monkeypatch.setattr(command_line, "built", lambda folder: standin_cuda)
    monkeypatch.setattr("sys.argv", ["", *words])
    assert command_line.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "unset ACCELERATE_USE_CPU" in lines
    assert {"export STANDIN_CUDA=2", f"export STANDIN_CUDA_BYTES={2**29}"} <= set(lines)
