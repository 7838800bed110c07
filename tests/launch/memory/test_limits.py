"""The options that choose a device and limit memory, and what is not started for want of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from launching import CONTAINER, SMALL, is_one_error, plant, plant_kernel, python, rows

from bench.arguments import Parser
from bench.errors import UsageError
from bench.failure import causes
from bench.failure.causes import Cause
from bench.memory.prediction import predict
from bench.options import Options
from bench.trial import Trial
from launch.group import postmortem
from launch.group.starter import StartRequest
from launch.group.warm_starter import WarmStarter
from launch.memory import limits
from launch.run_options import RunOptions
from launch.sweep import matrix, option_words, request, runner

RUN = ["run", "resnet20_accumulation", "--arm", "16x1", *SMALL]
MIB = 2**20


# Options


def in_bytes(*words: str) -> list[str]:
    """What becomes of these options of run on the CPU."""
    parser = Parser("run")
    request.arguments(parser)
    return limits.in_bytes(parser.parse_args(["resnet20_accumulation", *words]), 0)


def test_a_limit_becomes_a_field_of_the_trial_and_several_an_axis() -> None:
    words = in_bytes("--seed=1", "--memory-limit", "600MiB,1GiB", "--lr", "0.5,0.1")
    assert words == ["--seed", "1", "--memory-limit-bytes", f"{600 * MIB},{2**30}", "--lr", "0.5,0.1"]
    words = in_bytes("--seed", "1", "--memory-limit", "600MiB,1GiB")
    trials, _ = matrix.trials("resnet20_accumulation", "16x1", words)
    assert [trial.memory_limit_bytes for trial in trials] == [600 * MIB, 1024 * MIB]
    assert option_words.axes(words) == ["memory_limit_bytes"]
    assert in_bytes("--seed", "1") == ["--seed", "1"]


def test_a_reserve_is_taken_off() -> None:
    words = in_bytes("--reserve=512MiB", "--memory-limit", "2GiB,1GiB")
    assert words == ["--reserve", "512MiB", "--memory-limit-bytes", f"{1536 * MIB},{512 * MIB}"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--memory-limit", "much"], "'much'"),
        (["--memory-limit", "600MiB,"], "''"),
        (["--memory-limit", "1GiB", "--reserve", "2GiB"], "no more than the reserve of 2.00 GiB"),
        (["--reserve", "2GiB"], "--memory-limit"),
        (["--memory-limit", "1GiB", "--memory-limit-bytes=5"], "give one of them"),
        (["--device", "tpu"], "'tpu'"),
        (["--device", "cuda"], "no GPU"),
        (["--skip-over-limit"], "--memory-limit"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_one_sentence_and_leaves_no_folder(words: list[str], said: str, tmp_path: Path) -> None:
    done = python("-m", "launch", *RUN, *words, "--out", str(tmp_path / "runs"), env={"ACCELERATE_USE_CPU": "true"})
    assert is_one_error(done), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_device_is_chosen(standin_nvml: Path) -> None:
    code = "from launch.memory import limits; print(limits.gpus('{}'))"
    env = {**dict.fromkeys(("ACCELERATE_USE_CPU", "CUDA_VISIBLE_DEVICES")), "LD_LIBRARY_PATH": str(standin_nvml)}
    for device, gpus in (("auto", 2), ("cuda", 2), ("cpu", 0)):
        done = python("-c", code.format(device), env={**env, "STANDIN_NVML": "2"})
        assert done.stdout == f"{gpus}\n", done.stderr


# What is over its limit by prediction


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_trial_is_over_its_limit_by_what_is_predicted(gpus: int) -> None:
    trial = Trial(model="resnet8", data="synthetic", micro_batch=512)
    taken = predict(trial, "cuda" if gpus else "cpu").limited_bytes
    assert limits.over_limit(dataclasses.replace(trial, memory_limit_bytes=taken), gpus) is None
    why = limits.over_limit(dataclasses.replace(trial, memory_limit_bytes=2**27), gpus)
    assert why == f"predicted {taken / 2**30:.2f} GiB for the tensors of one process, of a limit of 0.12 GiB"
    assert limits.over_limit(trial, gpus) is None


@dataclasses.dataclass
class Ended:
    """A group that has ended as soon as it is started, but for what SIGKILL does not end."""

    left: set[int] = dataclasses.field(default_factory=set)

    def poll(self) -> int:
        return 1

    def members(self) -> set[int]:
        return set()

    def end(self, grace_s: float) -> set[int]:
        return self.left

    def start_failure(self) -> str:
        return ""


def test_a_trial_over_its_limit_gets_its_row_and_is_not_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trials, _ = matrix.trials("resnet20_accumulation", "16x1", ["--memory-limit-bytes", "5,6", "--micro-batch", "8"])
    started: list[Trial] = []

    def start(self: WarmStarter, order: StartRequest) -> Ended:
        started.append(order.trial)
        return Ended()

    monkeypatch.setattr(WarmStarter, "start", start)
    code = runner.run_all(
        trials,
        Options(out=tmp_path),
        RunOptions(),
        0,
        ["memory_limit_bytes"],
        lambda t: "too much" if t.memory_limit_bytes == 5 else None,
    )
    assert (code, started) == (1, trials[1:])
    row, _ = rows(tmp_path, "trials")
    assert (row["status"], row["error"], row["memory_limit_bytes"], row["log"]) == ("over_limit", "too much", "5", "")
    assert row["trial_key"] == trials[0].key()
    assert "memory_limit_bytes=5: over_limit: too much" in capsys.readouterr().err
    runner.run_all(trials[:1], Options(out=tmp_path), RunOptions(), 0, [])
    assert started == [trials[1], trials[0]]


def test_a_process_that_nothing_ends_ends_the_sweep_and_has_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold a device's memory, beside which the next trial would be measured."""
    monkeypatch.setattr(WarmStarter, "start", lambda self, order: Ended({4321}))
    trials, _ = matrix.trials("resnet20_accumulation", "16x1,16x8", [])
    with pytest.raises(UsageError, match="has ended, but SIGKILL does not end its process 4321"):
        runner.run_all(trials, Options(out=tmp_path), RunOptions(), 0, [])
    assert [row["status"] for row in rows(tmp_path, "trials")] == ["crashed"]


# What left no word

SILENT = Cause("crashed", "rank 1 was killed", silent=True)
TORCHRUN = "  exitcode  : -9 (pid: 123)\n  traceback : Signal 9 (SIGKILL) received by PID 123\n"
ACCELERATE = "subprocess.CalledProcessError: Command '[...]' died with <Signals.SIGKILL: 9>.\n"
LOADER = "RuntimeError: DataLoader worker (pid 5) is killed by signal: Killed. \n"
SEGFAULT = "traceback : Signal 11 (SIGSEGV) received by PID 123\n"


@pytest.mark.parametrize(
    ("said", "code", "log", "kills", "status"),
    [
        (SILENT, 1, TORCHRUN, 1, "oom"),
        (SILENT, 1, ACCELERATE, 1, "oom"),
        (SILENT, 1, LOADER, 1, "oom"),
        (SILENT, -9, "", 1, "oom"),
        (SILENT, 1, TORCHRUN, 0, "crashed"),
        (SILENT, -9, "", 0, "crashed"),
        (SILENT, -9, "", None, "crashed"),
        (SILENT, 1, SEGFAULT, 1, "crashed"),
        (SILENT, 1, "", 1, "crashed"),
        (SILENT._replace(silent=False), 1, TORCHRUN, 1, "crashed"),
        (SILENT._replace(error="rank 0 crashed: Aborted", killed_by_launcher=True), 1, TORCHRUN, 1, "crashed"),
        (SILENT, 1, "terminate called after throwing an instance of 'std::bad_alloc'\n" + SEGFAULT, 0, "oom"),
        (SILENT, 1, "libgomp: Thread creation failed: Resource temporarily unavailable\n", 0, "oom"),
    ],
)
def test_who_is_killed_while_the_kernel_has_no_memory_is_out_of_memory(
    said: Cause, code: int, log: str, kills: int | None, status: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.log"
    path.write_text("$ accelerate launch\n" + log)
    plant_kernel(tmp_path, 5)
    before = postmortem.cgroups.oom_kills(tmp_path)
    if kills is None:
        before = None
    else:
        plant_kernel(tmp_path, 5 + kills)
    found = postmortem.refine(said, code, path, before, tmp_path)
    assert found.status == status
    assert said.error in found.error
    if status == "oom" and kills:
        assert "rose from 5 to 6" in found.error


TABLE = """Root Cause (first observed failure):
[0]:
  time      : 2026-01-01_00:00:00
  host      : tower
  rank      : 1 (local_rank: 1)
  exitcode  : {} (pid: 123)
  error_file: <N/A>
"""
OTHER = TABLE.replace("1 (local_rank: 1)", "0 (local_rank: 0)").format(-15)
RAISED = """Traceback (most recent call last):
  File "/src/bench/cli.py", line 1, in <module>
    import pandas
ModuleNotFoundError: No module named 'pandas'
"""
LAUNCHER = """Traceback (most recent call last):
  File "/src/launch.py", line 1, in <module>
    launch()
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""
GONE, ALONE = causes.killed(1), Cause("crashed", "the launcher ended with exit code 1", silent=True, lost_rank=0)


@pytest.mark.parametrize(
    ("said", "log", "error"),
    [
        (GONE, OTHER + TABLE.format(-11), "rank 1 died of SIGSEGV; a library crashed; see the log"),
        (GONE, TABLE.format(-9), "rank 1 was killed by SIGKILL; if not by you, see dmesg"),
        (GONE, "launcher: rank 1 died of signal 7 (SIGBUS)\n", causes.killed(1, "SIGBUS").error),
        (GONE, "launcher: rank 0 died of signal 7 (SIGBUS)\n", GONE.error),
        (GONE, TABLE.format(-15), GONE.error),
        (GONE, LAUNCHER + TABLE.format(3), "rank 1 ended with exit code 3: it recorded no cause; see the log"),
        (ALONE, ACCELERATE.replace("SIGKILL: 9", "SIGILL: 4"), causes.killed(0, "SIGILL").error),
        (
            ALONE,
            RAISED + LAUNCHER + "CalledProcessError: Command '[...]' returned non-zero exit status 1.\n",
            "rank 0 ended with exit code 1: ModuleNotFoundError: No module named 'pandas'",
        ),
        (ALONE, "", ALONE.error),
        (causes.killed(1, "SIGKILL"), TABLE.format(-11), causes.killed(1, "SIGKILL").error),
    ],
)
def test_a_rank_that_recorded_nothing_ended_as_the_log_says(said: Cause, log: str, error: str, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("$ accelerate launch\n" + log)
    found = postmortem.refine(said._replace(oom_phase="forward"), 1, path, None, tmp_path)
    assert (found.status, found.error, found.oom_phase) == ("crashed", error, "forward")


@pytest.mark.parametrize(("kills", "status"), [(1, "oom"), (0, "crashed")])
def test_a_group_s_kill_keeps_what_is_known_and_names_the_limit(kills: int, status: str, tmp_path: Path) -> None:
    """As of a loader worker: the rank that waited for it knows its own phase and bytes. No other end has them."""
    cause = Cause("crashed", "killed", silent=True, oom_phase="data", oom_held_bytes=5, oom_requested_bytes=7)
    plant_kernel(tmp_path, 5 + kills)
    found = postmortem.refine(cause, -9, tmp_path / "none.log", 5, plant(tmp_path, CONTAINER))
    known = {"oom_phase": "data", "oom_requested_bytes": 7, "oom_held_bytes": 5}
    assert found.columns() == {"status": status, **(known if kills else dict.fromkeys(known))}
    assert ("in a control group with 1.30 GiB (/sys/fs/cgroup/memory.max): killed" in found.error) is bool(kills)


def test_a_limit_that_is_no_number_names_the_option() -> None:
    with pytest.raises(UsageError, match="no device 'x'; choose from: orin-nano-4gb"):
        in_bytes("--memory-limit", "x")
