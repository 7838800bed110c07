"""Real launches that run out of memory, or only seem to: each gets one row, which is true."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT, Launch
from launching import SMALL, Command, having, named, plant_kernel, rows, until

from bench.failure import crash_handler, oom
from bench.failure.causes import Cause
from bench.options import Options
from bench.record.columns import OOM_PHASES
from bench.trial import Trial
from bench.variables import RUNNER_ID
from launch.group.run_context import run_context
from launch.run_options import RunOptions
from launch.sweep.runner import run_sweep

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="on a CPU, Linux holds the limit")
MIB = 2**20
RUN = ["-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1", *SMALL]
LONG: dict[str, Any] = {"model": "resnet8", "data": "digits", "epochs": 1000, "limit_train": 64, "limit_eval": 50}


@pytest.fixture(scope="module")
def swept(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, list[dict[str, str]]]:
    """Exit code, what was said, and rows of two micro-batches under two limits: the large one needs the large one."""
    out = tmp_path_factory.mktemp("swept") / "runs"
    axes = ["--memory-limit", "64MiB,1GiB", "--micro-batch", "4,64"]
    done = launch(*RUN[2:], *axes, "--image-size", "64", "--epochs", "1", "--out", str(out))
    return done.returncode, done.stdout + done.stderr, rows(out, "trials")


def test_under_a_limit_some_trials_run_out_and_the_others_do_not(swept: tuple[int, str, list[dict[str, str]]]) -> None:
    code, _, trials = swept
    found = [(int(row["memory_limit_bytes"]) // MIB, row["micro_batch"], row["status"]) for row in trials]
    assert found == [(64, "4", "ok"), (64, "64", "oom"), (1024, "4", "ok"), (1024, "64", "ok")]
    assert code == 1


def test_what_ran_out_says_at_what_and_of_how_much(swept: tuple[int, str, list[dict[str, str]]]) -> None:
    _, said, trials = swept
    row = trials[1]
    assert row["oom_phase"] in ("forward", "backward")
    # What it held and what it asked for are more than there was.
    assert int(row["oom_held_bytes"]) <= 64 * MIB
    line = next(line for line in said.splitlines() if line.startswith("[2/4]"))
    assert f"micro_batch=64: oom in {row['oom_phase']}, " in line
    assert " MiB" in line
    assert row["error"] in line


# Killed, and the kernel's count


def killed(tmp_path: Path, processes: int, kills: int) -> dict[str, str]:
    """The row of a trial of which the last rank is killed, when the kernel's count is raised by so much."""
    plant_kernel(tmp_path, 2)
    trial = Trial(experiment="resnet20_accumulation", arm="16x1", processes=processes, micro_batch=16, **LONG)
    out = tmp_path / "runs"

    def kill() -> None:
        until(lambda: rows(out, "steps"), "training to begin")
        plant_kernel(tmp_path, 2 + kills)
        found = [p for p in having(RUNNER_ID, given.runner_id) if named(p) == f"rank {processes - 1}"]
        found[0].kill()

    with run_context(Options(out=out, checkpoint=False), 0, RunOptions()) as usual:
        given = dataclasses.replace(usual, root=tmp_path)
        killer = threading.Thread(target=kill)
        killer.start()
        assert run_sweep([("planted", trial)], given).exit_code() == 1
        killer.join()
        assert [p for p in having(RUNNER_ID, given.runner_id) if named(p) != "resbench warm"] == []
    (row,) = rows(out, "trials")
    assert having(RUNNER_ID, given.runner_id) == []
    return row


@pytest.mark.parametrize(("kills", "status", "processes"), [(1, "oom", 2), (1, "oom", 1), (0, "crashed", 1)])
def test_a_killed_rank_is_out_of_memory_where_the_kernel_counted_it(
    processes: int, kills: int, status: str, tmp_path: Path
) -> None:
    row = killed(tmp_path, processes, kills)
    assert row["status"] == status
    assert ("oom_kill rose from 2 to 3" in row["error"]) == (status == "oom")
    assert ("rank 1 was killed" in row["error"]) == (processes == 2)
    assert row["oom_requested_bytes"] == row["oom_held_bytes"] == ""
    # What it was doing at its end is known of whoever was killed; to have been killed by others is no want of memory.
    assert (row["oom_phase"] in OOM_PHASES) is (status == "oom")
    assert list((tmp_path / "runs/logs").glob("*.phase")) == []
    # With two, rank 0 lived to say how far it had come. With one, its last copy of the row may say it: it makes one a
    # second at most.
    steps = int(row["optimizer_steps"] or 0)
    assert steps > 0 if processes == 2 else steps <= len(rows(tmp_path / "runs", "steps"))


# Broken


def test_a_rank_that_breaks_far_from_its_limit_is_no_want_of_memory(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    words = [*RUN, "--epochs", "1000", "--memory-limit", "2GiB", "--no-checkpoint", "--out", str(out)]
    with Command(words, tmp_path) as command:
        until(lambda: rows(out, "steps"), "training to begin")
        rank = command.rank(0)
        assert rank is not None
        rank.send_signal(signal.SIGSEGV)
        assert command.wait() == 1
        assert command.left() == []
    (row,) = rows(out, "trials")
    assert row["status"] == "crashed"
    assert row["error"] == f"rank 0 crashed: Segmentation fault ({row['log']})"
    assert "bench/worker.py" in (out / row["log"]).read_text()
    assert list(out.glob("logs/*.fault")) == []


BREAK = """
import ctypes, sys, torch
from pathlib import Path
from bench.failure import crash_handler
from bench.machine import malloc, memory_limit
from bench.trial import Trial

malloc.return_freed_memory()
under = memory_limit.apply(Trial(memory_limit_bytes=2**26), torch.device("cpu"))
taken = []
for size in (2**20, 1000) if FILL else ():
    try:
        while True:
            taken.append(bytes(size))
    except MemoryError:
        pass
memory_limit.remove()
crash_handler.install(Path(LOGS), "a", 3, under.bytes, under.base_bytes)
exec(compile("def backward(): ctypes.string_at(0)\\nbackward()", FILE, "exec"))
"""


def broken(tmp_path: Path, fill: bool) -> Cause:
    """What is seen of a process that reads from nowhere in our function `backward`, its limit used up or not."""
    code = BREAK.replace("FILL", str(fill)).replace("LOGS", repr(str(tmp_path)))
    code = code.replace("FILE", repr(str(oom.BENCH / "training" / "loop.py")))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT)
    try:
        found = until(lambda: crash_handler.crashed_rank(tmp_path, "a"), "the fault")
        assert found is not None
        cause, pid, stack = found
        assert pid == process.pid
        assert process.poll() is None
        assert "in backward" in stack
        return cause
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def test_a_rank_that_breaks_at_its_limit_is_out_of_memory(tmp_path: Path) -> None:
    cause = broken(tmp_path, fill=True)
    assert (cause.status, cause.oom_phase, cause.oom_requested_bytes) == ("oom", "backward", None)
    assert cause.oom_held_bytes is not None
    assert cause.oom_held_bytes > 2**26 - crash_handler.NEAR_BYTES
    assert cause.error == "rank 3 crashed: Segmentation fault, with no memory left under its limit"


def test_a_rank_that_breaks_below_its_limit_is_not(tmp_path: Path) -> None:
    cause = broken(tmp_path, fill=False)
    assert (cause.status, cause.silent, cause.columns()["oom_held_bytes"]) == ("crashed", True, None)
