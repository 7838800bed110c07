"""ranks.csv: groups in which one rank is slow, none is, or one fails; and times by hand."""

from __future__ import annotations

import functools
import math
import socket
from pathlib import Path
from typing import Any

import planted
import pytest
from planted_rows import shown
from torch import nn

from bench.training.ranks import own_times, rank_columns
from bench.trial import Trial

SLEPT_S, WINDOWS = 0.02, 24
ALIKE = ("data_wait_s", "exposed_communication_s", "peak_rss_bytes")  # in trials.csv the most of any rank


def ran(folder: Path, build: Any, processes: int = 2) -> planted.Ran:
    """A trial of one warm-up step, full steps, and a short one."""
    trial = planted.settings(
        experiment="resnet20_accumulation", arm="16x8", micro_batch=4, processes=processes, warmup_windows=1
    )
    images = WINDOWS * trial.effective_batch() + processes
    return planted.run(folder, trial, build, functools.partial(planted.noise, train=images))


# A slow rank


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> planted.Ran:
    """Rank 1 sleeps 20 ms in each step."""
    build = functools.partial(planted.sleeper, each=(0.0, SLEPT_S))
    return planted.well(ran(tmp_path_factory.mktemp("slow"), build))


def test_a_rank_that_sleeps_in_each_step_is_named_with_what_it_sleeps(slow: planted.Ran) -> None:
    """Its own time has the sleep; that of the other, whose step is as long, has not: it waits for the gradients."""
    row, (waiting, sleeping) = slow.row(), slow.rows("ranks")
    ours, theirs = (float(rank["own_step_time_p50_s"]) for rank in (waiting, sleeping))
    assert row["slowest_rank"] == "1"
    assert row["slowest_rank_device"] == f"{socket.gethostname()}, CPU"
    assert float(row["slowest_rank_excess"]) == pytest.approx(theirs / ours - 1)
    assert SLEPT_S <= theirs <= float(row["step_time_p50_s"])
    assert SLEPT_S / 2 < theirs - ours < 10 * SLEPT_S  # what a step does besides sleeping may differ
    assert float(waiting["exposed_communication_s"]) > float(sleeping["exposed_communication_s"])
    assert float(sleeping["slowest_share"]) > 0.5
    assert float(sleeping["slowest_share"]) + float(waiting["slowest_share"]) == pytest.approx(1.0)


def test_each_rank_has_its_row_and_the_trial_s_most_is_that_of_one_of_them(slow: planted.Ran) -> None:
    row, ranks = slow.row(), slow.rows("ranks")
    for number, rank in enumerate(ranks):
        assert (rank["launch_id"], rank["rank"]) == (row["launch_id"], str(number))
        assert (rank["host"], rank["device_name"], rank["cpu_model"]) == (row["host"], "cpu", row["cpu_model"])
        assert rank["windows"] == str(WINDOWS - 1)
        assert float(rank["own_step_time_p50_s"]) <= float(rank["own_step_time_p90_s"])
        assert {rank[name] for name in ("device_index", "device_uuid", "peak_allocated_bytes")} == {""}
    for name in ALIKE:
        assert float(row[name]) == pytest.approx(max(float(rank[name]) for rank in ranks), rel=1e-9)


def test_the_table_names_it(slow: planted.Ran, capsys: pytest.CaptureFixture[str]) -> None:
    times = f"{1 + float(slow.row()['slowest_rank_excess']):.2f}"
    said = f"rank 1 (host {socket.gethostname()}, CPU) took {times} times as long as rank 0, which waits for it; "
    assert said + "of two ranks, no majority says which is the odd one" in shown(slow.folder, capsys)


# No slow rank


def uneven(trial: Trial, classes: int) -> nn.Module:
    """Sleeps from 0 to 18 ms, as long and as often on one rank as on the other, at other times."""
    return planted.Sleeper(lambda rank, number: 0.002 * ((7 * number + 5 * rank) % 10))


def test_of_equal_ranks_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In most steps one of them is far slower than the other."""
    found = planted.well(ran(tmp_path, uneven))
    row, ranks = found.row(), found.rows("ranks")
    assert (row["slowest_rank"], row["slowest_rank_device"]) == ("", "")
    assert float(row["slowest_rank_excess"]) >= 0
    assert all(0 < float(rank["slowest_share"]) < 1 for rank in ranks)
    assert "times as long as" not in shown(found.folder, capsys)


def test_one_process_has_a_row_and_waits_for_nobody(tmp_path: Path) -> None:
    found = planted.well(ran(tmp_path, planted.smooth, processes=1))
    row, (rank,) = found.row(), found.rows("ranks")
    for q in (50, 90):
        assert rank[f"own_step_time_p{q}_s"] == row[f"step_time_p{q}_s"]
    assert (rank["rank"], rank["slowest_share"], rank["exposed_communication_s"]) == ("0", "", "")
    assert {row[name] for name in ("slowest_rank", "slowest_rank_excess", "slowest_rank_device")} == {""}


def test_a_trial_that_ends_badly_leaves_what_was_measured(tmp_path: Path) -> None:
    """A loss that is no number, in the last full step of rank 1."""
    build = functools.partial(planted.failing, at=WINDOWS - 1, how="nan", build=planted.smooth, rank=1)
    found = ran(tmp_path, build)
    assert found.row()["status"] == "diverged", found.said()
    ranks = found.rows("ranks")
    assert [rank["rank"] for rank in ranks] == ["0", "1"]
    assert all(float(rank["own_step_time_p50_s"]) > 0 for rank in ranks)


# By hand


def test_a_rank_s_own_time_is_its_step_less_its_waiting_for_the_others() -> None:
    one = {"step_time_s": [5.0, 6.0], "exposed_communication_s": [1.0, 0.5]}
    other = {"step_time_s": [5.0, 6.0], "exposed_communication_s": [0.25, 4.0]}
    assert own_times([one, other], 2) == [(4.0, 4.75), (5.5, 2.0)]
    alone: dict[str, Any] = {"step_time_s": [5.0, 6.0], "exposed_communication_s": [None, None]}
    assert own_times([alone], 2) == [(5.0,), (6.0,)]


@pytest.mark.parametrize("lacks", [{"exposed_communication_s": [None]}, {}], ids=["no answer", "no such probe"])
def test_a_wait_that_is_unknown_leaves_the_own_times_of_all_unknown(lacks: dict[str, Any]) -> None:
    """That of one rank says nothing about which is slow."""
    ranks: list[dict[str, Any]] = [{"step_time_s": [5.0], "exposed_communication_s": [1.0]}, {"step_time_s": [5.0]}]
    (times,) = own_times([ranks[0], ranks[1] | lacks], 1)
    assert (times[0], math.isnan(times[1])) == (4.0, True)
    rows = rank_columns([{"images": 8}], times, [{}, {}], [{}, {}])
    assert [row.get("own_step_time_p50_s") for row in rows] == [None, None]


def test_times_are_of_full_steps_and_means_of_all_measured_ones() -> None:
    windows = [{"images": 8}, {"images": 8}, {"images": 8}, {"images": 4}]
    own = [1.0, 2.0, 3.0, 2.5, 2.0, 2.2, 9.0, 0.1]  # rank 0's and rank 1's of each window
    start = [dict.fromkeys(("measured_windows", "measured_wait_s", "measured_exposed_s"), 1.0)] * 2
    ends = [(5.0, 3.0, 9.0, 700.0), (5.0, 1.0, 1.0, 900.0)]
    names = ("measured_windows", "measured_wait_s", "measured_exposed_s", "peak_rss_bytes")
    first, second = rank_columns(windows, own, start, [dict(zip(names, end, strict=True)) for end in ends])
    assert (first["windows"], first["own_step_time_p50_s"], first["own_step_time_p90_s"]) == (
        3,
        2.0,
        pytest.approx(2.8),
    )
    assert (second["own_step_time_p50_s"], second["own_step_time_p90_s"]) == (2.2, pytest.approx(2.44))
    assert (first["slowest_share"], second["slowest_share"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert (first["data_wait_s"], first["exposed_communication_s"], first["peak_rss_bytes"]) == (0.5, 2.0, 700)
    assert (second["data_wait_s"], second["exposed_communication_s"], second["peak_rss_bytes"]) == (0.0, 0.0, 900)
    assert first["peak_allocated_bytes"] is None


def test_equal_ranks_share_a_window() -> None:
    own = [1.0, 1.0, 1.0, 2.0, 3.0, 3.0]
    rows = rank_columns([{"images": 8}] * 2, own, [{}] * 3, [{}] * 3)
    assert [row["slowest_share"] for row in rows] == pytest.approx([1 / 6, 5 / 12, 5 / 12])


def test_before_a_measured_step_there_is_no_time() -> None:
    for row in rank_columns([], [], [{}, {}], [{}, {}]):
        assert (row["windows"], row.get("own_step_time_p50_s"), row["data_wait_s"]) == (0, None, None)
