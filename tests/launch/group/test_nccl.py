"""Each way to lose a rank under NCCL, which leaves the others waiting in CUDA: the trial has its row all the same."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import planted
import psutil
import pytest
from launching import TINY, Command, alive, rows, until
from standin_cuda.standin import HERE, Standin

from bench import experiments

TRAIN = ["--arm", "16x1", *TINY, "--processes", "2", "--no-checkpoint"]
RUN = ["-m", "launch", "run", "resnet20_accumulation", *TRAIN]
EPOCHS, STALL_S = 2, 30
# Waits of 3 s and 8 s, as a machine that is busy with other tests has them.
SOON_S = 90.0
# Planted where Python looks when it starts: this signal has a rank ask for more than its GPU has.
GREEDY = f"""
import runpy, signal
runpy.run_path({str(HERE / "arithmetic" / "sitecustomize.py")!r})
def ask_for_all(number, frame):
    import torch
    torch.empty(2**40, dtype=torch.uint8, device="cuda")
signal.signal(signal.SIGUSR2, ask_for_all)
"""
LOST = {
    "killed rank 1": (1, signal.SIGKILL, "crashed", "rank 1 was killed"),
    "killed rank 0": (0, signal.SIGKILL, "crashed", "rank 0 was killed"),
    "oom on rank 1": (1, signal.SIGUSR2, "oom", "rank 1: OutOfMemoryError: "),
    "oom on rank 0": (0, signal.SIGUSR2, "oom", "rank 0: OutOfMemoryError: "),
    "stopped rank 1": (1, signal.SIGSTOP, "timeout", f"no progress for the {STALL_S} s of --stall-timeout"),
    "interrupted": (None, signal.SIGINT, "interrupted", "stopped by SIGINT"),
}


@dataclass
class Lost:
    """What came of a command whose first trial was well, and each of the others lost a rank or was interrupted."""

    well: dict[str, str]
    trials: dict[str, dict[str, str]]
    logs: dict[str, str]
    code: int
    left: int


def kept(out: Path) -> bool:
    """Whether rank 0 of the trial under way has left measured windows for whoever may have to write its row."""
    files = {path.name.partition(".")[0]: path for path in out.glob("logs/*.row.json")}
    under_way = files.keys() - {row["launch_id"] for row in rows(out, "trials")}
    with contextlib.suppress(FileNotFoundError):  # it ends just then
        return any(json.loads(files[launch].read_text()).get("measured_windows") for launch in under_way)
    return False


def rests(process: psutil.Process) -> bool:
    """Whether the process's main thread computes nothing for a while."""
    before = spent(process)
    time.sleep(1.0)
    return spent(process) == before


def spent(process: psutil.Process) -> float:
    """The seconds of a CPU that its main thread has had."""
    return next(thread.user_time + thread.system_time for thread in process.threads() if thread.id == process.pid)


def ended(out: Path, number: int, group: list[psutil.Process]) -> dict[str, str]:
    """The row of the trial of this number, once it is there and the trial's processes are not."""
    until(lambda: len(rows(out, "trials")) == number, "the trial's row", STALL_S + SOON_S)
    until(lambda: not alive(group), "the group's end", SOON_S)
    return rows(out, "trials")[-1]


@pytest.fixture(scope="module")
def lost(standin_cuda: Standin, tmp_path_factory: pytest.TempPathFactory) -> Lost:
    scratch = tmp_path_factory.mktemp("nccl")
    (scratch / "sitecustomize.py").write_text(GREEDY)
    out = scratch / "runs"
    epochs = [EPOCHS, *range(100_000, 100_000 + len(LOST))]
    words = [*RUN, "--epochs", ",".join(map(str, epochs)), "--stall-timeout", str(STALL_S), "--out", str(out)]
    found = Lost({}, {}, {}, -1, -1)
    env = standin_cuda.variables(gpus=2)
    env["PYTHONPATH"] = f"{scratch}:{env['PYTHONPATH']}"
    with Command(words, scratch, env) as command:
        found.well = until(lambda: rows(out, "trials"), "the first trial's end")[0]
        for number, (name, (rank, sent, _, _)) in enumerate(LOST.items(), 2):
            until(lambda: kept(out), "windows to be measured")
            group = command.group()
            victim = command.process if rank is None else command.rank(rank)
            assert victim is not None
            victim.send_signal(sent)
            found.trials[name] = ended(out, number, group)
        found.code, found.left = command.wait(), len(command.left())
    found.logs = {row["epochs"]: (out / row["log"]).read_text() for row in rows(out, "trials")}
    return found


@pytest.mark.parametrize("name", LOST)
def test_a_lost_rank_costs_no_row_and_nothing_that_was_measured(lost: Lost, name: str) -> None:
    row = lost.trials[name]
    _, _, status, said = LOST[name]
    assert (row["backend"], row["status"]) == ("nccl", status), row["error"]
    assert said in row["error"]
    assert int(row["measured_windows"]) > 0
    assert float(row["images_per_s"]) > 0
    assert int(row["images_seen"]) >= 32 * int(row["optimizer_steps"]) > 0


def test_the_command_says_that_it_was_interrupted_and_leaves_nothing(lost: Lost) -> None:
    assert (lost.code, lost.left) == (130, 0)
    assert len({row["launch_id"] for row in lost.trials.values()}) == len(LOST)


def test_the_log_of_a_hang_says_where_the_other_rank_waits(lost: Lost) -> None:
    _, _, stack = lost.logs[lost.trials["stopped rank 1"]["epochs"]].partition("rank 0, process ")
    assert "(most recent call first)" in stack
    assert "in work\n" in stack


def test_two_gpus_train_as_two_processes_on_the_cpu_to_the_last_digit(lost: Lost, tmp_path: Path) -> None:
    """NCCL's collectives against gloo's; in the same command, before anything was lost."""
    assert (lost.well["status"], lost.well["backend"], lost.well["device_count"]) == ("ok", "nccl", "2")
    trial = experiments.load("resnet20_accumulation").trial("resnet20_accumulation", "16x1")
    small: dict[str, Any] = {
        "image_size": 16,
        "limit_train": 64,
        "limit_eval": 50,
        "warmup_windows": 1,
        "epochs": EPOCHS,
    }
    trial = dataclasses.replace(trial, model="resnet8", data="digits", processes=2, **small)
    ours = planted.well(planted.run(tmp_path, trial)).row()
    assert ours["trial_key"] == lost.well["trial_key"]
    for name in ("train_loss", "train_accuracy", "eval_loss", "eval_accuracy"):
        assert lost.well[name] == ours[name] != ""


def test_torch_warns_of_nothing(lost: Lost) -> None:
    assert len(lost.logs) == len(LOST) + 1
    for log in lost.logs.values():
        assert "Warning" not in log


def test_by_hand_too_ctrl_c_leaves_what_was_measured(standin_cuda: Standin, tmp_path: Path) -> None:
    """No launcher of ours is there to write the row. Rank 1 heeds no signal, so rank 0 stays in its collective."""
    out = tmp_path / "runs"
    words = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    words += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    words += ["-m", "bench.experiments.resnet20_accumulation", *TRAIN, "--epochs", "100000", "--out", str(out)]
    with Command(words, tmp_path, standin_cuda.variables(gpus=2)) as command:
        until(lambda: [row for row in rows(out, "steps") if row["measured"] == "true"], "a measured window")
        first, other = command.rank(0), command.rank(1)
        assert first is not None
        assert other is not None
        other.suspend()
        until(lambda: rests(first), "rank 0 to wait for rank 1")
        command.interrupt()
        (row,) = until(lambda: rows(out, "trials"), "the row", SOON_S)
        other.kill()
        assert command.wait() != 0
        until(lambda: not command.left(), "the end of its processes", SOON_S)
        assert "Warning" not in command.stderr.read_text()
    assert (row["status"], row["backend"], row["error"]) == ("interrupted", "nccl", "stopped by SIGINT")
    assert int(row["measured_windows"]) > 0
    assert float(row["images_per_s"]) > 0
