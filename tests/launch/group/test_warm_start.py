"""A trial that is forked off a warm process is the one that `accelerate launch` starts, and as well kept apart."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from launching import TINY, Command, python, rows, two_gpus, until

RUN = ["-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1", *TINY, "--no-checkpoint"]
# One process without a limit on memory, and two with one.
ARMS = """
from bench.experiment import Experiment, Trial

BASE = Trial(micro_batch=16, precision="bf16", epochs=10)
EXPERIMENT = Experiment("?", BASE, {"alone": {}, "limited": {"processes": 2, "memory_limit_bytes": 2**30}})
"""
# Of a trial, these may differ between two launches of it.
OWN = {"launch_id", "started_at", "started_by", "environment", "log"}
# Whether a rank stands apart in so short a trial is chance.
BY_CHANCE = {"slowest_rank", "slowest_rank_excess", "slowest_rank_device"}


@dataclass(frozen=True)
class Way:
    """What a way to start trials left: their rows, the losses of their windows, as text, and on which addresses the
    processes of the second one listened."""

    trials: list[dict[str, str]]
    losses: list[list[str]]
    listened: set[str]


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Way]:
    """The same trials warm and cold, started with what a run on several machines has left over."""
    scratch = tmp_path_factory.mktemp("ways")
    (scratch / "arms.py").write_text(ARMS)
    return {"warm": went(scratch, "warm"), "cold": went(scratch, "cold", "--cold")}


def went(scratch: Path, way: str, *more: str) -> Way:
    out = scratch / way
    words = ["-m", "launch", "run", str(scratch / "arms.py"), *TINY, "--no-checkpoint", *more, "--out", str(out)]
    listened: set[str] = set()
    with Command(words, scratch, left_over()) as command:
        until(lambda: len({row["launch_id"] for row in rows(out, "epochs")}) == 2, "the second to train")
        while len(rows(out, "trials")) < 2 and command.process.poll() is None:
            listened |= {address.ip for process in command.left() for address in listening(process)}
            time.sleep(0.05)
        assert command.wait() == 0
    steps, trials = rows(out, "steps"), rows(out, "trials")
    losses = [[step["train_loss"] for step in steps if step["launch_id"] == row["launch_id"]] for row in trials]
    return Way(trials, losses, listened)


def listening(process: psutil.Process) -> list[Any]:
    """The addresses on which a process listens; none of one that is gone."""
    with contextlib.suppress(psutil.Error):
        return [each.laddr for each in process.net_connections() if each.status == psutil.CONN_LISTEN]
    return []


def left_over() -> dict[str, str]:
    """The variables of a run on several machines, which name this machine's outer interface and its address."""
    at = {name: [a.address for a in them if a.family == socket.AF_INET] for name, them in psutil.net_if_addrs().items()}
    outer = [(name, them[0]) for name, them in at.items() if them and not them[0].startswith("127.")]
    name, address = (outer or [("eth0", "203.0.113.1")])[0]  # without one, gloo and NCCL refuse to start
    variables = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME"), name)
    variables |= dict.fromkeys(("MASTER_ADDR", "PET_MASTER_ADDR"), address)
    return variables | {"MASTER_PORT": "29500", "PET_RDZV_ENDPOINT": f"{address}:29500"}


def test_losses_are_equal_to_the_last_bit(ways: dict[str, Way]) -> None:
    assert ways["warm"].losses == ways["cold"].losses
    assert [len(losses) for losses in ways["warm"].losses] == [40, 20]
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


@pytest.mark.parametrize("way", ["warm", "cold"])
def test_a_run_on_one_machine_listens_on_the_loopback_device_alone(way: str, ways: dict[str, Way]) -> None:
    """Whatever is left over in its environment."""
    assert ways[way].listened, "gloo listens for the other rank at least"
    assert ways[way].listened <= {"127.0.0.1", "::1"}


def test_the_warm_process_runs_one_thread_and_knows_no_device_and_with_another_thread_is_not_forked() -> None:
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
    assert "threads run after the imports; start trials with --cold" in done.stderr


def test_what_starts_the_warm_process_imports_no_torch() -> None:
    code = "import sys; import launch.cli, launch.sweep.runner\nprint('torch' in sys.modules)"
    assert python("-c", code).stdout == "False\n"


# Side by side


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


def test_side_by_side_on_one_device_is_refused(standin_nvml: Path, tmp_path: Path) -> None:
    for env, what in ((two_gpus(standin_nvml, STANDIN_NVML="1"), "1 GPU;"), ({}, "no GPU to use;")):
        done = python(*RUN, "--parallel", "2", "--out", str(tmp_path / "runs"), env=env)
        assert done.returncode == 2
        assert f"--parallel is 2 but this machine has {what}" in done.stderr
    assert not (tmp_path / "runs").exists()
