"""Failures: which cause a trial's row names, whichever rank it came from."""

import errno
import functools
import os
import subprocess
import sys
from pathlib import Path

import planted
import pytest
from conftest import CHECKOUT
from torch._utils import KeyErrorMessage

from bench.errors import UsageError
from bench.failure import next_moves
from bench.failure.causes import Cause, Diverged, Interrupted
from bench.failure.explain import explain


@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_s_error_is_the_trial_s_cause_and_it_has_one_row(rank: int, tmp_path: Path) -> None:
    trial = planted.settings(micro_batch=2, processes=2)
    build = functools.partial(planted.failing, at=3, how="raise", build=planted.smooth, rank=rank)
    ran = planted.run(tmp_path, trial, build, functools.partial(planted.noise, train=16))
    assert ran.codes == [1, 1], ran.said()
    assert ran.row()["status"] == "crashed"
    assert ran.row()["error"] == 'RuntimeError: planted failure, in "two" lines'
    assert int(ran.row()["total_parameters"]) > 0


def explained(error: BaseException, logs: Path, **peers: int) -> Cause:
    return explain(error, {int(rank[1:]): pid for rank, pid in peers.items()}, logs, "a")


def ended() -> int:
    """The id of a process that is gone."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:115] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp"),
    ],
)
def test_running_out_of_memory_is_oom(error: Exception, tmp_path: Path) -> None:
    assert explained(error, tmp_path).status == "oom"


def test_an_error_is_its_own_cause_in_one_line(tmp_path: Path) -> None:
    for error in (RuntimeError("shapes cannot\nbe multiplied"), ValueError("connection closed by peer")):
        text = " ".join(str(error).split())
        assert explained(error, tmp_path, r0=os.getpid()) == Cause("crashed", f"{type(error).__name__}: {text}")
    assert explained(KeyError(), tmp_path) == Cause("crashed", "KeyError")
    assert len(explained(RuntimeError("x" * 10_000), tmp_path).error) <= 300


LOADER = """Caught OSError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "/usr/lib/python3/torch/utils/data/_utils/worker.py", line 404, in _worker_loop
    data = fetcher.fetch(index)
           ^^^^^^^^^^^^^^^^^^^^
  File "/home/me/data.py", line 3, in __getitem__
    numpy.save(path, image)
{}
"""
FULL = "OSError: [Errno 28] No space left on device: '/scratch/cache.npy'"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(LOADER.format(FULL)),
            f"OSError: Caught OSError in DataLoader worker process 0: {FULL}; make room on that disk",
        ),
        (
            RuntimeError(
                LOADER.format("RuntimeError: unable to write to file </torch_7_1>: No space left on device (28)")
            ),
            "RuntimeError: Caught OSError in DataLoader worker process 0: RuntimeError: unable to write to file "
            f"</torch_7_1>: No space left on device (28); {next_moves.SHM}",
        ),
        (
            KeyError(KeyErrorMessage(LOADER.format("KeyError: 'x'\nof two lines"))),
            "KeyError: Caught OSError in DataLoader worker process 0: KeyError: 'x' of two lines",
        ),
        (
            RuntimeError("DataLoader worker (pid 5) is killed by signal: Bus error. It is possible"),
            f"RuntimeError: DataLoader worker (pid 5) is killed by signal: Bus error. It is possible; {next_moves.SHM}",
        ),
        (
            RuntimeError("CUDA error: invalid argument\nCUDA kernel errors might be asynchronously reported\nmore"),
            "RuntimeError: CUDA error: invalid argument",
        ),
        (
            RuntimeError("wrong\nException raised from to_cuda at f.cpp:1 (most recent call first):\nframe #0: c10"),
            "RuntimeError: wrong",
        ),
        (RuntimeError("Original Traceback (most recent call last): cut"), None),
    ],
)
def test_what_comes_from_below_is_its_cause_and_the_next_move(
    error: Exception, said: str | None, tmp_path: Path
) -> None:
    found = explained(error, tmp_path)
    assert found.status == "crashed"
    assert found.error == (said or f"RuntimeError: {error}")


def test_of_a_long_error_the_end_is_kept_too(tmp_path: Path) -> None:
    error = explained(RuntimeError(LOADER.format("OSError: " + "x" * 1000 + " is the cause")), tmp_path).error
    assert error.startswith("RuntimeError: Caught OSError in DataLoader worker process 0: OSError: xxx")
    assert error.endswith("xxx is the cause")


def test_what_the_machine_ran_out_of_is_the_cause_of_what_came_of_it(tmp_path: Path) -> None:
    """As torch's writer of checkpoints: the disk is full, and then its position is unexpected."""
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/out/x")
        except OSError:
            raise RuntimeError("unexpected pos 576 vs 534")  # noqa: B904
    except RuntimeError as error:
        said = explained(error, tmp_path).error
    assert said == (
        "OSError: [Errno 28] No space left on device: '/out/x'; then RuntimeError: unexpected pos 576 vs 534; "
        "make room on that disk"
    )


def test_an_interface_that_is_not_there_is_named_with_the_variable_that_asks_for_it(tmp_path: Path) -> None:
    trial = planted.settings(micro_batch=4, processes=2)
    ran = planted.run(tmp_path, trial, planted.smooth, planted.noise, GLOO_SOCKET_IFNAME="nope0", LOGLEVEL="ERROR")
    assert set(ran.codes) == {1}
    (said,) = [line for line in ran.said().splitlines() if line.startswith("error: ")]
    assert "nope0; GLOO_SOCKET_IFNAME=nope0 asks for it, and this machine has lo" in said


@pytest.mark.parametrize(
    ("value", "is_there"),
    [("lo", True), ("eth", True), ("=eth0", True), ("=eth", False), ("ib,eth0", True), ("ib0", False), ("^lo", True)],
)
def test_a_variable_may_take_an_interface_in_nccl_s_ways(value: str, is_there: bool) -> None:
    assert next_moves.has(value, ["lo", "eth0"]) == is_there


def test_a_request_that_cannot_be_met_and_a_divergence_keep_their_sentence(tmp_path: Path) -> None:
    assert explained(UsageError("out of memory is no word here"), tmp_path).usage
    assert explained(Diverged("the loss is nan"), tmp_path) == Cause("diverged", "the loss is nan")


def test_a_lost_connection_is_the_end_of_the_rank_that_is_gone(tmp_path: Path) -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1234")
    cause = explained(lost, tmp_path, r0=os.getpid(), r1=ended())
    assert cause.status == "crashed"
    assert cause.error == "rank 1 was killed; if not by you, see dmesg"


def test_a_rank_that_ends_a_moment_after_its_connection_is_waited_for(tmp_path: Path) -> None:
    # Unreaped, it is a zombie by then, as a rank is whose launcher has not looked yet.
    dying = subprocess.Popen(["sleep", "1"])
    assert dying.poll() is None
    cause = explained(RuntimeError("Connection reset by peer"), tmp_path, r0=os.getpid(), r1=dying.pid)
    dying.wait()
    assert cause.error == "rank 1 was killed; if not by you, see dmesg"


def test_a_rank_that_is_told_to_stop_names_the_one_that_is_gone_or_was_interrupted(tmp_path: Path) -> None:
    told = Interrupted("stopped by SIGTERM")
    assert explained(told, tmp_path, r0=os.getpid(), r1=os.getppid()) == Cause("interrupted", "stopped by SIGTERM")
    assert explained(told, tmp_path, r0=os.getpid(), r1=ended()).error == "rank 1 was killed; if not by you, see dmesg"


LAUNCHER = """
import os, sys, time
from pathlib import Path
from bench.failure.causes import Interrupted
from bench.failure.explain import explain
from bench.machine import procfs

os.environ |= {"LOCAL_WORLD_SIZE": "2", "RESBENCH_LAUNCH_ID": "run1"}
if os.fork() == 0:  # rank 1, which ends before the group has formed
    while len(sys.argv) < 3:
        time.sleep(1)
    os._exit(1)
if len(sys.argv) > 2:
    os.wait()
if os.fork() == 0:
    os.environ["LOCAL_RANK"] = "0"
    procfs.name_process("rank 0")
    print(explain(Interrupted("stopped by SIGTERM"), {}, Path(sys.argv[1]), "run1").error, flush=True)
    os.killpg(0, 9)
time.sleep(60)
"""


@pytest.mark.parametrize(("gone", "said"), [([], "stopped by SIGTERM"), (["gone"], "rank 1 was killed")])
def test_so_it_is_before_the_ranks_know_each_other(gone: list[str], said: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", LAUNCHER, str(tmp_path), *gone]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, start_new_session=True, check=False)
    assert done.stdout.startswith(said), done.stderr


def test_an_allocation_that_fails_is_oom(tmp_path: Path) -> None:
    trial = planted.settings(micro_batch=4, processes=2)
    build = functools.partial(planted.hoarder, sizes=(0, 2**60))
    ran = planted.run(tmp_path, trial, build, functools.partial(planted.noise, train=32))
    assert ran.codes == [1, 1], ran.said()
    assert ran.row()["status"] == "oom"
    assert "can't allocate memory" in ran.row()["error"]
