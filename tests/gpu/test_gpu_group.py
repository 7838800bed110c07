"""Two GPUs and more: NCCL's group trains as one process does, and each way to lose a rank ends in a true row."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest
from launching import Command, rows, until

from . import trials
from .device import ON_STANDIN

pytestmark = pytest.mark.gpu
ALIKE = 0.02
STALLED_S = "15"


@pytest.fixture(scope="session")
def two(known: dict[str, Any]) -> None:
    """Skips where there are no two GPUs."""
    if len(known["gpus"]) < 2:
        pytest.skip("one GPU: the NCCL lines need two")


@pytest.mark.usefixtures("two")
def test_two_gpus_train_as_one_process_group(figures: dict[str, Any], tmp_path: Path) -> None:
    """Two processes under NCCL: `ok` in every precision, both GPUs in the rows, the loss of the same two on CPUs"""
    words = trials.words("--processes", "2", "--micro-batch", "32", "--no-checkpoint")
    found = trials.sweep([*words, "--precision", "no,bf16,fp16"], tmp_path / "gpus")
    cpus = trials.sweep([*words, "--device", "cpu"], tmp_path / "cpus").row(status="ok")
    for precision in ("no", "bf16", "fp16"):
        row = found.row(precision=precision, status="ok")
        assert (row["backend"], row["device_count"]) == ("nccl", "2")
        figures[f"{precision} images/s"] = f"{float(row['images_per_s']):.0f}"
        ranks = [rank for rank in found.rows("ranks") if rank["launch_id"] == row["launch_id"]]
        assert [rank["rank"] for rank in ranks] == ["0", "1"]
        assert len({(rank["device_index"], rank["device_uuid"]) for rank in ranks}) == 2
        for rank in ranks:
            assert (rank["device_index"].isdigit(), rank["device_name"]) == (True, row["device_name"])
            own, wait = float(rank["own_step_time_p50_s"]), float(rank["exposed_communication_s"])
            assert 0 < own <= float(row["step_time_p50_s"])
            assert 0 < wait <= float(row["exposed_communication_s"])
    ours, theirs = float(found.row(precision="no")["train_loss"]), float(cpus["train_loss"])
    figures["loss"] = f"{ours:.5f} and {theirs:.5f}"
    assert ours == pytest.approx(theirs, rel=0 if ON_STANDIN else ALIKE)


def measuring(out: Path, launches: int = 1) -> None:
    """Wait until so many launches have measured a window."""
    until(
        lambda: len({row["launch_id"] for row in rows(out, "steps") if row["measured"] == "true"}) >= launches,
        "windows to be measured",
    )


@dataclasses.dataclass
class Lost:
    """What came of a command whose trials lost a rank, each in its own way."""

    code: int
    trials: dict[str, dict[str, str]]
    steps: dict[str, int]
    left: int


WAYS = {"1000": "rank 1 killed", "1001": "rank 0 killed", "1002": "rank 1 stopped"}
if ON_STANDIN:  # where tests/launch/group/test_nccl.py stops one: what hangs is only told by waiting for it
    del WAYS["1002"]
STOPPED = "1003"


@pytest.fixture(scope="session")
def lost(two: None, tmp_path_factory: pytest.TempPathFactory) -> Lost:
    """One command whose trials lose a rank, each in its own way, but for the last two: one is left alone, and Ctrl-C
    comes in the other."""
    scratch = tmp_path_factory.mktemp("lost")
    out = scratch / "runs"
    words = trials.words(
        "--epochs", f"{','.join(WAYS)},1,{STOPPED}", "--processes", "2", "--no-checkpoint", "--out", str(out)
    )
    words += [] if ON_STANDIN else ["--stall-timeout", STALLED_S]
    with Command([*trials.RUN, *words], scratch) as command:
        for number, way in enumerate(WAYS.values(), 1):
            measuring(out, number)
            rank = command.rank(int(way[5]))
            assert rank is not None
            rank.send_signal(signal.SIGSTOP if way.endswith("stopped") else signal.SIGKILL)
        measuring(out, len(WAYS) + 2)
        command.interrupt()
        code = command.wait(100)
        left = len(command.left())
    steps = [row["launch_id"] for row in rows(out, "steps")]
    ended = {row["epochs"]: row for row in rows(out, "trials")}
    return Lost(code, ended, {epochs: steps.count(row["launch_id"]) for epochs, row in ended.items()}, left)


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("epochs", WAYS, ids=WAYS.values())
def test_a_lost_rank_ends_its_trial(figures: dict[str, Any], lost: Lost, epochs: str) -> None:
    """A rank that is lost under NCCL ends its trial, whose row says why and keeps what was measured"""
    row, way = lost.trials[epochs], WAYS[epochs]
    figures |= {"status": row["status"], "windows kept": lost.steps[epochs], "after s": row["duration_s"]}
    assert row["status"] == ("timeout" if way.endswith("stopped") else "crashed"), row["error"]
    assert lost.steps[epochs] > 0
    if way.endswith("killed"):
        assert f"{way[:6]} was killed" in row["error"]
    if way.startswith("rank 1"):  # of rank 0, what it measured in its last second may be all
        assert row["images_per_s"], "what was measured is lost"


@pytest.mark.usefixtures("two")
def test_the_trial_after_lost_ranks_runs(figures: dict[str, Any], lost: Lost) -> None:
    """After lost ranks the next trial is `ok`, and no process is left"""
    figures |= {"status": lost.trials["1"]["status"], "left": lost.left}
    assert (lost.trials["1"]["status"], lost.left) == ("ok", 0)


@pytest.mark.usefixtures("two")
def test_ctrl_c_keeps_what_two_gpus_measured(figures: dict[str, Any], lost: Lost) -> None:
    """Ctrl-C under NCCL leaves an `interrupted` row with what was measured, and no process"""
    row = lost.trials[STOPPED]
    figures |= {"images seen": row["images_seen"], "images/s": row["images_per_s"]}
    assert (row["status"], lost.left, lost.code) == ("interrupted", 0, 130), row["error"]
    assert row["images_per_s"], "what was measured is lost"
