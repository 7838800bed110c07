"""Trials side by side: what happens to one of them is the others' business in nothing."""

from __future__ import annotations

import datetime
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from launching import TINY, Command, alive, delete, named, rows, until
from standin_cuda.standin import Standin

RUN = ["-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1", *TINY, "--no-checkpoint"]
SIDE_BY_SIDE = [*RUN, "--parallel", "2", "--processes", "1"]
# Each trial has threads for all cores that it may use; on one, two trials do not wait for each other's.
ON_ONE_CORE = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.execv(sys.argv[1], sys.argv[1:])
"""
PREFIX = [sys.executable, "-c", ON_ONE_CORE]


def launch_of(out: Path, epochs: str) -> str:
    """The id of the launch of so many epochs, once it trains."""

    def found() -> list[str]:
        heads = {log.stem: log.read_text().partition("\n")[0].split() for log in out.glob("logs/*.log")}
        training = {row["launch_id"] for row in rows(out, "epochs")}
        asked = [
            name for name, head in heads.items() if "--epochs" in head and head[head.index("--epochs") + 1] == epochs
        ]
        return [name for name in asked if name in training]

    return until(found, f"the trial of {epochs} epochs to train")[0]


def rank_of(command: Command, launch_id: str) -> psutil.Process:
    """The only process of a launch: the one that writes to its log."""
    ranks = [process for process in command.left() if named(process) == "rank 0"]
    (rank,) = [p for p in ranks if os.readlink(f"/proc/{p.pid}/fd/1").endswith(f"{launch_id}.log")]
    return rank


@dataclass(frozen=True)
class Ended:
    """What came of a sweep."""

    code: int
    said: list[str]
    trials: list[dict[str, str]]
    variables: dict[str, dict[str, str]]
    """The environment variables by the trial's epochs."""
    left: int


@pytest.fixture(scope="module")
def ended(standin_cuda: Standin, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Of two without end one is killed, for which a short one and another without end follow; then Ctrl-C."""
    scratch = tmp_path_factory.mktemp("parallel")
    out = scratch / "runs"
    words = [*SIDE_BY_SIDE, "--epochs", "100000,100001,2,100002,3", "--out", str(out)]
    with Command(words, scratch, standin_cuda.variables(gpus=2), prefix=PREFIX) as command:
        launch_of(out, "100001")
        rank_of(command, launch_of(out, "100000")).kill()
        launch_of(out, "100002")
        command.interrupt()
        code = command.wait()
        left = len(command.left())
    trials = rows(out, "trials")
    environments = json.loads((out / "environment.json").read_text())
    variables = {row["epochs"]: environments[row["environment"]]["variables"] for row in trials}
    return Ended(code, command.stderr.read_text().splitlines(), trials, variables, left)


def test_each_has_one_row_and_those_that_ctrl_c_finds_under_way_are_both_interrupted(ended: Ended) -> None:
    assert [(row["epochs"], row["status"]) for row in ended.trials[:2]] == [("100000", "crashed"), ("2", "ok")]
    under_way = sorted((row["epochs"], row["status"]) for row in ended.trials[2:])
    assert under_way == [("100001", "interrupted"), ("100002", "interrupted")]
    assert all(row["images_seen"] for row in ended.trials[1:])
    assert (ended.code, ended.left) == (130, 0)


def test_trials_train_at_the_same_time(ended: Ended) -> None:
    """One of two epochs begins and ends while one without end is under way."""
    short, long = (next(row for row in ended.trials if row["epochs"] == epochs) for epochs in ("2", "100001"))
    (began, over), (long_began, long_over) = map(span, (short, long))
    assert long_began < began < over < long_over
    assert {row["parallel"] for row in ended.trials} == {"2"}


def span(row: dict[str, str]) -> tuple[float, float]:
    """When a trial began and ended."""
    began = datetime.datetime.fromisoformat(row["started_at"]).timestamp()
    return began, began + float(row["duration_s"])


def test_each_has_a_gpu_of_its_own_and_one_that_is_free_again_goes_to_the_next(ended: Ended) -> None:
    devices = {epochs: variables["CUDA_VISIBLE_DEVICES"] for epochs, variables in ended.variables.items()}
    assert devices == {"100000": "0", "100001": "1", "2": "0", "100002": "0"}
    # As NVML counts, which found them.
    assert {variables["CUDA_DEVICE_ORDER"] for variables in ended.variables.values()} == {"PCI_BUS_ID"}


def test_the_summary_has_those_that_were_stopped_in_one_line(ended: Ended) -> None:
    summary = ended.said[next(n for n, line in enumerate(ended.said) if "did not end well" in line) :]
    assert summary[0] == "3 of 5 trials did not end well:"
    assert summary[1].startswith("  crashed: [1/5] resnet20_accumulation 16x1 epochs=100000: ")
    assert " and 1 more: stopped by SIGINT" in summary[2]


def test_a_folder_that_is_deleted_under_two_leaves_none_of_them(standin_cuda: Standin, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    words = [*SIDE_BY_SIDE, "--epochs", "100000,100001,2", "--out", str(out)]
    with Command(words, tmp_path, standin_cuda.variables(gpus=2), prefix=PREFIX) as command:
        ranks = [rank_of(command, launch_of(out, epochs)) for epochs in ("100000", "100001")]
        delete(out)
        assert command.wait() == 2
        assert alive(ranks) == command.left() == []
        said = command.stderr.read_text()
    assert said.splitlines()[-1].startswith("error: ")
    assert "was deleted or moved" in said.splitlines()[-1]
    assert "Traceback" not in said
