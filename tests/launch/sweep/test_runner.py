"""Whole runs, launched as a user launches them: groups of one and two processes, then a stop, then going on.

One run folder serves all tests, since starting a group takes seconds: `first` fills it, `stopped` adds a run that
Ctrl-C ends, `resumed` goes on from there, and gets its Ctrl-C between two trials.
"""

from __future__ import annotations

import csv
import gzip
import json
import signal
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from launching import TINY, Command, python, rows, until

from bench.failure.causes import Interrupted
from launch import interrupts

# What a user may once have told `accelerate config`, and what a cluster may leave in the environment. Each of these
# would change what is trained, or with whom.
CONFIG = """\
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
mixed_precision: fp16
num_processes: 3
num_machines: 2
machine_rank: 1
main_process_ip: 203.0.113.1
main_process_port: 29500
gradient_accumulation_steps: 8
use_cpu: false
"""
LEFT_OVER = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "203.0.113.1",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "8",
}
ARM = ["resnet20_accumulation", "--arm", "16x1", *TINY]
EPOCHS = "40"  # of a few hundredths of a second: long enough to be stopped in the middle


@dataclass
class Run:
    """A command that has ended, and its folder as it was then."""

    code: int
    folder: Path
    said: str
    shown: str
    trials: list[dict[str, str]]
    left: int


def end(command: Command, folder: Path) -> Run:
    code = command.wait()
    said, shown = command.stderr.read_text(), command.stdout.read_text()
    return Run(code, folder, said, shown, rows(folder, "trials"), len(command.left()))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One and two processes, in the worst of environments; a hang-up comes in between, which nohup has switched off."""
    scratch = tmp_path_factory.mktemp("first")
    home = scratch / "hf" / "accelerate"
    home.mkdir(parents=True)
    (home / "default_config.yaml").write_text(CONFIG)
    out = scratch / "runs"
    words = ["-m", "launch", "run", *ARM, "--processes", "1,2", "--epochs", "2", "--trace", "--out", str(out)]
    with Command(words, scratch, {"HF_HOME": str(home.parent), **LEFT_OVER}, ignored=[signal.SIGHUP]) as command:
        until(lambda: rows(out, "trials"), "the first trial's row")
        command.process.send_signal(signal.SIGHUP)
        yield end(command, out)


@pytest.fixture(scope="module")
def stopped(first: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Into the same folder: a trial that is there already, one that Ctrl-C stops after an epoch, one never begun."""
    words = ["-m", "launch", "run", *ARM, "--processes", "2", "--epochs", f"2,{EPOCHS},3"]
    words += ["--resume", "--out", str(first.folder)]
    with Command(words, tmp_path_factory.mktemp("stopped")) as command:
        before = len(rows(first.folder, "epochs"))
        until(lambda: len(rows(first.folder, "epochs")) > before + 1, "two epochs")
        command.interrupt()
        yield end(command, first.folder)


@pytest.fixture(scope="module")
def resumed(stopped: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    words = ["-m", "launch", "run", *ARM, "--processes", "2", "--epochs", f"{EPOCHS},3"]
    words += ["--resume", "--out", str(stopped.folder)]
    with Command(words, tmp_path_factory.mktemp("resumed")) as command:
        before = len(stopped.trials)
        until(lambda: len(rows(stopped.folder, "trials")) > before, "the resumed trial's row")
        command.interrupt()
        yield end(command, stopped.folder)


# Groups


def test_the_groups_that_were_asked_for_are_formed(first: Run) -> None:
    assert first.code == 0, first.said
    assert [(row["status"], row["processes"], row["backend"]) for row in first.trials] == [
        ("ok", "1", ""),
        ("ok", "2", "gloo"),
    ]


def test_each_launch_has_one_trace_of_all_its_ranks(first: Run) -> None:
    for row in first.trials:
        trace = gzip.decompress((first.folder / "traces" / f"{row['launch_id']}.json.gz").read_bytes())
        convolutions = {e["pid"] for e in json.loads(trace)["traceEvents"] if e["name"] == "aten::convolution"}
        assert len(convolutions) == int(row["processes"])
        assert (first.folder / "traces" / f"{row['launch_id']}.csv").exists()


def test_any_number_of_processes_sees_each_image_once_an_epoch(first: Run) -> None:
    assert [row["images_seen"] for row in first.trials] == ["128", "128"]
    assert [row["effective_batch"] for row in first.trials] == ["16", "32"]
    assert [row["optimizer_steps"] for row in first.trials] == ["8", "4"]


def test_no_config_or_left_over_variable_shapes_a_trial(first: Run, tmp_path: Path) -> None:
    """The same trial by hand in a clean environment, and without a trace, learns exactly the same."""
    done = python("-m", "bench.experiments.resnet20_accumulation", *ARM[1:], "--epochs", "2", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (alone,) = rows(tmp_path, "trials")
    for name in ("trial_key", "precision", "train_loss", "train_accuracy", "eval_loss", "eval_accuracy"):
        assert (name, alone[name]) == (name, first.trials[0][name])


def test_a_hang_up_that_nohup_has_switched_off_stops_nothing(first: Run) -> None:
    assert len(first.trials) == 2


def test_nothing_of_a_run_stays_behind(first: Run, stopped: Run, resumed: Run) -> None:
    assert [run.left for run in (first, stopped, resumed)] == [0, 0, 0]
    logs = {path.suffix for path in (first.folder / "logs").iterdir() if not path.name.startswith(".")}
    assert logs <= {".log", ".json"}
    assert not list((first.folder / "logs").glob("*.row.json"))


# What is seen


def test_progress_in_a_pipe_is_plain_lines(first: Run) -> None:
    assert {unicodedata.category(character) for character in first.said if character != "\n"} & {"Cc", "Cf"} == set()
    assert "[1/2] resnet20_accumulation 16x1 processes=1: ok" in first.said
    assert "[2/2] resnet20_accumulation 16x1 processes=2: ok" in first.said


def test_the_table_at_the_end_is_the_one_that_reports_show_prints(resumed: Run) -> None:
    assert resumed.shown
    assert python("-m", "reports", "show", str(resumed.folder)).stdout == resumed.shown


def test_every_launch_has_a_log_that_says_how_it_was_started(first: Run) -> None:
    for row in first.trials:
        log = (first.folder / row["log"]).read_text()
        assert "accelerate" in log.splitlines()[0], log
        assert f"--processes {row['processes']}" in log.splitlines()[0]


# Ctrl-C


def test_ctrl_c_ends_the_run_with_its_own_exit_code(stopped: Run) -> None:
    assert stopped.code == 130
    assert stopped.said.splitlines()[-1] == "interrupted: the same command goes on"


def test_what_is_interrupted_has_one_row_that_says_so_and_the_rest_is_not_begun(stopped: Run) -> None:
    row = stopped.trials[-1]
    assert [row["epochs"] for row in stopped.trials] == ["2", "2", EPOCHS]
    assert (row["status"], row["backend"]) == ("interrupted", "gloo")
    assert "SIGINT" in row["error"]


def test_what_was_measured_before_ctrl_c_is_kept(stopped: Run) -> None:
    launch = stopped.trials[-1]["launch_id"]
    epochs = [row for row in rows(stopped.folder, "epochs") if row["launch_id"] == launch]
    steps = [row for row in rows(stopped.folder, "steps") if row["launch_id"] == launch]
    assert len(epochs) >= 2
    assert len(steps) >= 4
    assert all(row["train_loss"] for row in [*epochs, *steps])
    assert int(stopped.trials[-1]["images_seen"]) >= 128
    assert float(stopped.trials[-1]["images_per_s"]) > 0


def test_ctrl_c_after_a_trials_row_leaves_that_as_it_is_and_begins_no_other(resumed: Run) -> None:
    assert resumed.code == 130
    assert resumed.said.splitlines()[-1] == "interrupted: the same command goes on"
    assert (resumed.trials[3]["epochs"], resumed.trials[3]["status"]) == (EPOCHS, "ok")
    # On a busy machine the signal may come late enough to find the next one begun.
    assert [row["status"] for row in resumed.trials[4:]] in ([], ["interrupted"])


# Going on


def test_resume_skips_what_is_done(stopped: Run) -> None:
    assert "[1/3] resnet20_accumulation 16x1 epochs=2: has its row already" in stopped.said
    assert Counter(row["epochs"] for row in stopped.trials) == {"2": 2, EPOCHS: 1}


def test_resume_goes_on_where_the_interrupted_trial_stood(stopped: Run, resumed: Run) -> None:
    before, after = resumed.trials[2:4]
    assert (after["status"], after["trial_key"]) == ("ok", before["trial_key"])
    kept = [int(row["epoch"]) for row in rows(resumed.folder, "epochs") if row["launch_id"] == before["launch_id"]]
    added = [int(row["epoch"]) for row in rows(resumed.folder, "epochs") if row["launch_id"] == after["launch_id"]]
    start = int(after["resumed_at_epoch"])
    # An epoch whose row was written just before the stop, and its checkpoint not, is trained again.
    assert start in (len(kept), len(kept) - 1)
    assert kept == list(range(len(kept)))
    assert added == list(range(start, int(EPOCHS)))
    assert after["images_seen"] == str(64 * int(EPOCHS))


def test_runs_into_one_folder_extend_it(resumed: Run) -> None:
    for file in ("trials", "epochs", "steps"):
        lines = (resumed.folder / f"{file}.csv").read_text().splitlines()
        assert lines.count(lines[0]) == 1
        assert {len(row) for row in csv.reader(lines)} == {lines[0].count(",") + 1}
    assert [row["status"] for row in resumed.trials[:4]] == ["ok", "ok", "interrupted", "ok"]
    assert len({row["launch_id"] for row in resumed.trials}) == len(resumed.trials)
    environments = json.loads((resumed.folder / "environment.json").read_text())
    assert {row["environment"] for row in resumed.trials[:4]} <= set(environments)


def test_ctrl_c_while_a_trial_gets_its_row_waits_for_that_and_is_not_lost() -> None:
    code = """
import contextlib, os, signal
from launch import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & switches it off
with contextlib.suppress(interrupts.Interrupted), interrupts.handling(interrupts.interrupt):
    with interrupts.undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        print("the row is written")
    print("another trial begins")
"""
    assert python("-c", code).stdout == "the row is written\n"


def test_ctrl_c_is_not_lost_if_the_row_cannot_be_written() -> None:
    def write() -> None:
        with interrupts.handling(interrupts.interrupt), interrupts.undisturbed():
            signal.raise_signal(signal.SIGHUP)
            raise OSError("disk full")

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a nohup around the tests would have it ignored
    try:
        with pytest.raises(Interrupted, match="stopped by SIGHUP") as caught:
            write()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert str(caught.value.__context__) == "disk full"
