"""A trial that is forked off a warm process is the one that `accelerate launch` starts, and as well kept apart."""

from __future__ import annotations

import datetime
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Launch
from launching import TINY, python, rows, two_gpus
from standin_cuda.standin import Standin

RUN = ["-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1", *TINY, "--no-checkpoint"]
# Of a trial, these may differ between two launches of it.
OWN = {"launch_id", "started_at", "started_by", "environment", "log"}
# Whether a rank stands apart in so short a trial is chance.
BY_CHANCE = {"slowest_rank", "slowest_rank_excess", "slowest_rank_device"}


@dataclass(frozen=True)
class Way:
    """What a way to start trials left: their rows, and the losses of their windows, as text."""

    trials: list[dict[str, str]]
    losses: list[list[str]]


@pytest.fixture(scope="module")
def ways(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Way]:
    """The same trials warm and cold: one process, and two with a limit on memory."""
    found = {}
    for way, more in (("warm", ()), ("cold", ("--cold",))):
        out = tmp_path_factory.mktemp(way) / "runs"
        for limit in (["--processes", "1"], ["--processes", "2", "--memory-limit", "1GiB"]):
            done = launch(*RUN[2:], "--precision", "bf16", "--epochs", "3", *limit, *more, "--out", str(out))
            assert done.returncode == 0, done.stderr
        steps, trials = rows(out, "steps"), rows(out, "trials")
        losses = [[step["train_loss"] for step in steps if step["launch_id"] == row["launch_id"]] for row in trials]
        found[way] = Way(trials, losses)
    return found


def test_losses_are_equal_to_the_last_bit(ways: dict[str, Way]) -> None:
    assert ways["warm"].losses == ways["cold"].losses
    assert [len(losses) for losses in ways["warm"].losses] == [12, 6]
    assert len(set(ways["warm"].losses[0])) > 1


def test_rows_have_the_same_columns_filled_and_the_same_results(ways: dict[str, Way]) -> None:
    for warm, cold in zip(ways["warm"].trials, ways["cold"].trials, strict=True):
        filled = [{name for name in row if row[name]} - BY_CHANCE for row in (warm, cold)]
        assert filled[0] == filled[1]
        same = [
            name for name in warm if name not in OWN | BY_CHANCE and not re.search(r"_s$|_cv$|_bytes$|_process$", name)
        ]
        assert {name: warm[name] for name in same} == {name: cold[name] for name in same}
        assert (warm["started_by"], cold["started_by"]) == ("warm", "cold")


def test_the_warm_process_runs_one_thread_and_knows_no_device_and_with_another_thread_it_is_not_forked() -> None:
    code = """
import os, threading, time, torch
from launch.group import fork_server
fork_server.load()
print(len(os.listdir("/proc/self/task")), torch.cuda.is_initialized(), flush=True)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
fork_server.load()
"""
    done = python("-c", code, env={"OPENBLAS_NUM_THREADS": "1"})
    assert done.stdout == "1 False\n", done.stderr
    assert done.returncode == 1
    assert "2 threads run after the imports; start trials with --cold" in done.stderr


def test_what_starts_the_warm_process_imports_no_torch() -> None:
    code = "import sys; import launch.cli, launch.sweep.runner\nprint('torch' in sys.modules)"
    assert python("-c", code).stdout == "False\n"


# Side by side


def test_trials_side_by_side_have_gpus_of_their_own(standin_cuda: Standin, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    env = standin_cuda.variables(gpus=2)
    words = [*RUN, "--parallel", "2", "--processes", "1", "--seed", "0,1", "--epochs", "8", "--out", str(out)]
    done = python(*words, env=env, preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
    assert done.returncode == 0, done.stderr
    first, second = rows(out, "trials")
    began = [datetime.datetime.fromisoformat(row["started_at"]).timestamp() for row in (first, second)]
    assert max(began) < min(began[0] + float(first["duration_s"]), began[1] + float(second["duration_s"]))
    assert (first["parallel"], second["parallel"]) == ("2", "2")
    environments = json.loads((out / "environment.json").read_text())
    variables = [environments[row["environment"]]["variables"] for row in (first, second)]
    assert sorted(each["CUDA_VISIBLE_DEVICES"] for each in variables) == ["0", "1"]
    assert {each["CUDA_DEVICE_ORDER"] for each in variables} == {"PCI_BUS_ID"}  # as NVML counts, which found them


def test_devices_are_given_out_once_and_what_needs_more_waits(standin_nvml: Path) -> None:
    code = """
from types import SimpleNamespace as S
from launch.sweep.runner import Sweep
sweep = object.__new__(Sweep)
sweep.context = S(run_options=S(parallel=3))
sweep.running = []
one, two = S(processes=1), S(processes=2)
print(sweep.free_devices(two))
sweep.running = [S(devices=sweep.free_devices(one))]
print(sweep.free_devices(one), sweep.free_devices(two))
sweep.context.run_options.parallel = 1
print(sweep.free_devices(two))
"""
    done = python("-c", code, env=two_gpus(standin_nvml))
    assert done.stdout == "['0', '1']\n['1'] None\n[]\n", done.stderr


def test_side_by_side_on_one_device_is_refused(standin_nvml: Path, launch: Launch, tmp_path: Path) -> None:
    words = [*RUN, "--parallel", "2", "--out", str(tmp_path / "runs")]
    on_one = python(*words, env=two_gpus(standin_nvml, STANDIN_NVML="1"))
    for done, what in ((on_one, "1 GPU;"), (launch(*words[2:]), "no GPU to use;")):
        assert done.returncode == 2
        assert f"--parallel is 2 but this machine has {what}" in done.stderr
    assert not (tmp_path / "runs").exists()
