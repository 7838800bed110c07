"""What can happen to a process group, done to real ones: every trial gets one true row, and nothing is left running."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from launching import SMALL, Command, alive, rows, until

RUN = ["-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1"]
DIGITS = ["--data", "digits", "--no-checkpoint"]
# ResNet-20 on all digits, for longer than any test waits: what happens, happens in the middle.
LONG = [*DIGITS, "--epochs", "1000"]
# The limit is 30 s; a machine that is busy with other tests may take longer.
SOON_S = 60.0


def training(out: Path, launches: int = 1) -> str:
    """Wait until so many launches have trained; the id of the last."""
    until(lambda: len({row["launch_id"] for row in rows(out, "steps")}) >= launches, "training to begin")
    return rows(out, "steps")[-1]["launch_id"]


# Processes that are killed


@dataclass
class Fault:
    """What came of a launch in which something was killed."""

    row: dict[str, str]
    steps: int
    left: int


@dataclass
class Killed:
    """What came of the command."""

    code: int
    faults: dict[str, Fault]
    trials: list[dict[str, str]]
    left: int


def settled(out: Path, launch_id: str, group: list[psutil.Process]) -> Fault:
    """Wait until the launch has its row, and its group has ended."""

    def of_this(file: str) -> list[dict[str, str]]:
        return [row for row in rows(out, file) if row["launch_id"] == launch_id]

    (row,) = until(lambda: of_this("trials"), "the trial's row", SOON_S)
    until(lambda: not alive(group), "the group's end", SOON_S)
    return Fault(row, len(of_this("steps")), len(alive(group)))


VICTIMS = ("rank 1", "rank 0", "launcher")
CRASHED = "rank 1 that crashes"


@pytest.fixture(scope="module", params=["warm", "cold"])
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """One command of trials of two processes: in three one process is killed, in one it crashes, a fifth is left alone.

    Cold, there is no fifth, which takes a quarter of a minute to start; test_warm_start.py has some that end well.
    """
    scratch = tmp_path_factory.mktemp("killed")
    out = scratch / "runs"
    more = ["1000,1001,1002,1003", "--cold"] if request.param == "cold" else ["1000,1001,1002,1003,1"]
    few = ["--limit-train", "160", "--limit-eval", "50"]  # a thousand epochs of them are longer than any test waits
    words = [*RUN, *DIGITS, *few, "--processes", "2", "--epochs", *more, "--out", str(out)]
    faults = {}
    with Command(words, scratch) as command:
        for number, victim in enumerate((*VICTIMS, CRASHED)):
            launch_id = training(out, number + 1)
            process = command.launcher() if victim == "launcher" else command.rank(int(victim.split()[1]))
            assert process is not None
            group = command.group()
            assert len(group) == 3
            process.send_signal(signal.SIGSEGV if victim == CRASHED else signal.SIGKILL)
            faults[victim] = settled(out, launch_id, group)
        yield Killed(command.wait(), faults, rows(out, "trials"), len(command.left()))


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_killed_process_crashes_its_trial_and_is_named(killed: Killed, victim: str) -> None:
    row = killed.faults[victim].row
    assert row["status"] == "crashed"
    assert f"{victim} was killed" in row["error"]
    assert row["host"]


def test_a_rank_that_a_library_crashed_is_named_with_the_signal(killed: Killed) -> None:
    row = killed.faults[CRASHED].row
    assert row["status"] == "crashed"
    assert row["error"].startswith("rank 1 died of SIGSEGV; a library crashed; see the log (logs/")


@pytest.mark.parametrize("victim", [*VICTIMS, CRASHED])
def test_of_the_group_nothing_is_left_running_and_its_windows_are_kept(killed: Killed, victim: str) -> None:
    assert killed.faults[victim].left == 0
    assert killed.faults[victim].steps > 0


def test_the_trials_after_a_crash_still_run(killed: Killed) -> None:
    """They train, as the steps of the second and the third show; and one that is left alone ends well."""
    found = [(row["epochs"], row["status"]) for row in killed.trials]
    assert found[:4] == [(str(epochs), "crashed") for epochs in range(1000, 1004)]
    assert all(fault.steps > 0 for fault in killed.faults.values())
    assert found[4:] == ([("1", "ok")] if killed.trials[0]["started_by"] == "warm" else [])
    assert all(row["images_per_s"] for row in killed.trials[4:])


def test_the_command_says_that_trials_failed_and_leaves_nothing(killed: Killed) -> None:
    assert (killed.code, killed.left) == (1, 0)


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
    """Rank 1 may take little more than it has before its first window, which needs over a gigabyte."""
    out = tmp_path / "runs"
    words = [*RUN, *DIGITS, "--epochs", "1000,1", "--processes", "2", "--micro-batch", "719", "--out", str(out)]
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


def test_a_full_disk_takes_no_request(small_disk: Path, tmp_path: Path) -> None:
    fill(small_disk)
    with Command([*RUN, *SMALL, "--out", str(small_disk / "runs")], tmp_path) as command:
        assert command.wait() == 2
        (line,) = command.stderr.read_text().splitlines()
    assert line.startswith("error: ")
    assert "No space left on device" in line
    assert [path for path in small_disk.rglob("*") if path.is_file()] == [small_disk / "filler"]
    assert os.statvfs(small_disk).f_bavail == 0
