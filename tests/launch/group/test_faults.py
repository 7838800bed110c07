"""What can happen to a process group, done to real ones: every trial gets one true row, and nothing is left running."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from conftest import Launch
from launching import TINY, Command, alive, is_one_error, rows, until

RUN = ["-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1"]
# For longer than any test waits: what happens, happens in the middle.
LONG = [*TINY, "--no-checkpoint", "--epochs", "100000"]
# The limit is 30 s; a machine that is busy with other tests may take longer.
SOON_S = 60.0


def training(out: Path, launches: int = 1) -> str:
    """Wait until so many launches have trained; the id of the last."""
    until(lambda: len({row["launch_id"] for row in rows(out, "steps")}) >= launches, "training to begin")
    return rows(out, "steps")[-1]["launch_id"]


# Processes that are killed, crash or hang


@dataclass
class Fault:
    """What came of a launch in which this happened to a process."""

    row: dict[str, str]
    log: str
    steps: int
    left: int


@dataclass
class Struck:
    """What came of the command."""

    code: int
    said: str
    faults: dict[str, Fault]
    trials: list[dict[str, str]]
    left: int
    listening: set[str]


# What happens to the trials of a command, one after the other, which else would train for longer than any test waits.
STALL_S = 20
CRASHED, HANGS = "rank 1 that crashes", "rank 1 that hangs"
SENT = {
    "rank 1": signal.SIGKILL,
    "rank 0": signal.SIGKILL,
    "launcher": signal.SIGKILL,
    CRASHED: signal.SIGSEGV,
    HANGS: signal.SIGSTOP,
}
LASTING = {name: str(100_000 + number) for number, name in enumerate(SENT)}


def settled(out: Path, launch_id: str, group: list[psutil.Process]) -> Fault:
    """Wait until the launch has its row, and its group has ended."""

    def of_this(file: str) -> list[dict[str, str]]:
        return [row for row in rows(out, file) if row["launch_id"] == launch_id]

    (row,) = until(lambda: of_this("trials"), "the trial's row", STALL_S + SOON_S)
    until(lambda: not alive(group), "the group's end", SOON_S)
    return Fault(row, (out / row["log"]).read_text(), len(of_this("steps")), len(alive(group)))


def left_over() -> dict[str, str]:
    """The variables of a run on several machines, which name this machine's outer interface and its address."""
    at = {name: [a.address for a in them if a.family == socket.AF_INET] for name, them in psutil.net_if_addrs().items()}
    outer = [(name, them[0]) for name, them in at.items() if them and not them[0].startswith("127.")]
    name, address = (outer or [("eth0", "203.0.113.1")])[0]  # without one, gloo and NCCL refuse to start
    variables = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME"), name)
    variables |= dict.fromkeys(("MASTER_ADDR", "PET_MASTER_ADDR"), address)
    return variables | {"MASTER_PORT": "29500", "PET_RDZV_ENDPOINT": f"{address}:29500"}


def strike(scratch: Path, happens: Sequence[str], after: Sequence[str], *more: str) -> Struck:
    """Have trials of two processes each with something that happens to it, and then some that are left alone."""
    out = scratch / "runs"
    epochs = ",".join([*(LASTING[name] for name in happens), *after])
    words = [*RUN, *TINY, "--no-checkpoint", "--processes", "2", "--epochs", epochs, *more, "--out", str(out)]
    faults, listening = {}, set()
    with Command(words, scratch, left_over()) as command:
        for number, name in enumerate(happens, 1):
            launch_id = training(out, number)
            connections = [connection for process in command.left() for connection in process.net_connections()]
            listening |= {connection.laddr.ip for connection in connections if connection.status == "LISTEN"}
            process = command.launcher() if name == "launcher" else command.rank(int(name.split()[1]))
            assert process is not None
            group = command.group()
            assert len(group) == 3
            process.send_signal(SENT[name])
            faults[name] = settled(out, launch_id, group)
        code, said = command.wait(), command.stderr.read_text()
        return Struck(code, said, faults, rows(out, "trials"), len(command.left()), listening)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Struck:
    return strike(tmp_path_factory.mktemp("warm"), list(SENT), ["1"], "--stall-timeout", str(STALL_S))


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Struck:
    """Each takes a quarter of a minute to start, so each rank is hit once, and none is left alone.

    test_warm_start.py has cold ones that end well.
    """
    return strike(tmp_path_factory.mktemp("cold"), ["rank 0", "launcher", CRASHED], [], "--cold")


@pytest.fixture(scope="module", params=["warm", "cold"])
def struck(request: pytest.FixtureRequest) -> Struck:
    found: Struck = request.getfixturevalue(request.param)
    return found


def test_a_killed_process_crashes_its_trial_and_is_named(struck: Struck) -> None:
    killed = {name: fault.row for name, fault in struck.faults.items() if SENT[name] == signal.SIGKILL}
    assert {"rank 0", "launcher"} <= killed.keys()
    for name, row in killed.items():
        assert row["status"] == "crashed", name
        assert f"{name} was killed" in row["error"]
        assert row["host"]


def test_a_rank_that_a_library_crashed_is_named_with_the_signal(struck: Struck) -> None:
    row = struck.faults[CRASHED].row
    assert row["status"] == "crashed"
    assert row["error"].startswith("rank 1 died of SIGSEGV; a library crashed; see the log (logs/")


def test_of_the_group_nothing_is_left_running_and_its_windows_are_kept(struck: Struck) -> None:
    for fault in struck.faults.values():
        assert fault.left == 0
        assert fault.steps > 0


def test_the_trials_after_a_fault_still_run(struck: Struck) -> None:
    """They train, as the steps of the second and those after it show."""
    ended = [(row["epochs"], row["status"]) for row in struck.trials[: len(struck.faults)]]
    assert ended == [(LASTING[name], "timeout" if name == HANGS else "crashed") for name in struck.faults]
    assert all(fault.steps > 0 for fault in struck.faults.values())


def test_a_trial_that_is_left_alone_after_them_ends_well(warm: Struck) -> None:
    (row,) = warm.trials[len(warm.faults) :]
    assert (row["epochs"], row["status"]) == ("1", "ok")
    assert row["images_per_s"]


def test_the_command_says_that_trials_failed_and_leaves_nothing(struck: Struck) -> None:
    assert (struck.code, struck.left) == (1, 0)
    assert f"{len(struck.faults)} of {len(struck.trials)} trials did not end well" in struck.said


def test_a_run_on_one_machine_listens_on_the_loopback_device_alone(struck: Struck) -> None:
    """Whatever is left over in its environment."""
    assert struck.listening, "gloo listens for the other rank at least"
    assert struck.listening <= {"127.0.0.1", "::1"}


def test_a_hung_collective_ends_as_timeout(warm: Struck) -> None:
    row = warm.faults[HANGS].row
    assert row["status"] == "timeout"
    assert f"no progress for the {STALL_S} s of --stall-timeout" in row["error"]
    assert f"  timeout: [5/6] resnet20_accumulation 16x1 epochs={LASTING[HANGS]}: no progress" in warm.said


def test_its_log_says_where_the_ranks_were(warm: Struck) -> None:
    _, _, stack = warm.faults[HANGS].log.partition("rank 0, process ")
    assert "(most recent call first)" in stack
    assert "in run_rank" in stack


# A stop


def test_a_stop_before_the_group_has_formed_leaves_a_row_and_no_process(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    with Command([*RUN, *LONG, "--seed", "0,1", "--out", str(out)], tmp_path) as command:
        until(lambda: list(out.glob("logs/*.log")), "the group to be started")
        command.process.terminate()
        assert command.wait() == 130
        assert command.left() == []
    (row,) = rows(out, "trials")
    assert (row["status"], row["seed"]) == ("interrupted", "0")
    assert "SIGTERM" in row["error"]


def test_ctrl_c_under_accelerate_launch_leaves_a_row_what_was_measured_and_no_process(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    by_hand = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    by_hand += ["--mixed_precision", "bf16", "--dynamo_backend", "no", "--main_process_port", "0"]
    by_hand += ["-m", "bench.experiments.resnet20_accumulation", "--arm", "16x1", *LONG, "--out", str(out)]
    with Command(by_hand, tmp_path) as command:
        training(out)
        command.interrupt()
        assert command.wait() != 0
        until(lambda: not command.left(), "the end of its processes", SOON_S)
    (row,) = rows(out, "trials")
    assert (row["status"], row["processes"], row["precision"]) == ("interrupted", "2", "bf16")
    assert {step["launch_id"] for step in rows(out, "steps")} == {row["launch_id"]}


# What runs out


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited from outside by Linux's prlimit")
def test_a_rank_out_of_memory_ends_its_trial_as_oom(tmp_path: Path) -> None:
    """Rank 1 may take 64 MiB more than it has before its first window, which needs some ten times as much."""
    out = tmp_path / "runs"
    words = [*RUN, "--data", "digits", "--no-checkpoint", "--processes", "2", "--micro-batch", "400,16"]
    words += ["--limit-eval", "50", "--limit-windows", "2", "--epochs", "1", "--out", str(out)]
    with Command(words, tmp_path) as command:
        process = until(lambda: command.rank(1), "rank 1")
        until(lambda: list(out.glob("logs/*.row.json")), "the group to be set up")
        assert process is not None
        most = process.memory_info().data + 2**26
        process.rlimit(resource.RLIMIT_DATA, (most, most))
        assert command.wait() == 1
        assert command.left() == []
    row, after = rows(out, "trials")
    assert row["status"] == "oom", row["error"]
    assert row["error"].startswith("rank 1: ")
    assert row["oom_phase"] in ("forward", "backward")
    assert f"tried to allocate {row['oom_requested_bytes']} bytes" in row["error"]
    assert after["status"] == "ok"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1M", "none", str(folder)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take all the room that is left."""
    for size in (65536, 1):
        with open(folder / "filler", "ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"0" * size):
                pass


def test_a_disk_that_fills_up_in_training_ends_it_and_leaves_whole_rows(small_disk: Path, tmp_path: Path) -> None:
    out = small_disk / "runs"
    with Command([*RUN, *LONG, "--seed", "0,1", "--out", str(out)], tmp_path) as command:
        training(out)
        fill(small_disk)
        assert command.wait() == 2
        assert command.left() == []
        said = command.stderr.read_text()
    assert said.splitlines()[-1].startswith("error: ")
    assert "No space left on device" in said
    assert "Traceback" not in said
    # Where there was room for the row at all, it says the same.
    assert all("No space left on device" in row["error"] for row in rows(out, "trials"))
    for file in out.glob("*.csv"):
        lines = file.read_text().splitlines(keepends=True)
        assert all(line.endswith("\n") and line.count(",") >= lines[0].count(",") for line in lines)
    assert not list(out.glob("**/.*.[0-9]*")), "scratch files are left"


def test_a_full_disk_takes_no_request(small_disk: Path, launch: Launch) -> None:
    fill(small_disk)
    done = launch(*RUN[2:], *TINY, "--out", str(small_disk / "runs"))
    assert is_one_error(done), done.stderr
    assert "No space left on device" in done.stderr
    assert [path for path in small_disk.rglob("*") if path.is_file()] == [small_disk / "filler"]
    assert os.statvfs(small_disk).f_bavail == 0
