"""Communication: planted waits, known gradients, and a count that no formula of ours enters."""

import functools
from pathlib import Path
from typing import Any

import planted
import pytest
import torch

from bench.trial import Trial

GRADIENTS = 4  # of planted.smooth: two layers' weights and biases
GRADIENT_BYTES = 4 * (6 * 3 * 3 * 3 + 6 + 24 * 10 + 10)
COUNTS = ("allreduces_per_window", "allreduce_bytes_per_window")


def two(windows: int = 5, **changes: Any) -> tuple[Trial, Any]:
    """A trial of two processes, two windows of which warm up, and data for so many windows."""
    trial = planted.settings(**{"micro_batch": 4, "processes": 2, "warmup_windows": 2, **changes})
    return trial, functools.partial(planted.noise, train=windows * trial.effective_batch())


def ran(folder: Path, build: Any = planted.smooth, windows: int = 5, **changes: Any) -> planted.Ran:
    trial, load = two(windows, **changes)
    return planted.well(planted.run(folder, trial, build, load))


def otherwise(target: Any, folder: Path, *words: Any, **changes: Any) -> planted.Ran:
    """A trial that something has been done to before."""
    trial, load = two(**changes)
    folder.mkdir(exist_ok=True)
    codes = planted.group(2, target, *words, trial, folder, planted.smooth, load, said=folder)
    return planted.Ran(trial, folder, codes)


def counts(ran: planted.Ran) -> list[int | None]:
    return [int(ran.row()[name]) if ran.row()[name] else None for name in COUNTS]


# All-reduces


@pytest.mark.parametrize(
    ("changes", "allreduces", "bytes_each_number"),
    [
        ({}, 1, 4),
        ({"accumulate": 3}, 1, 4),
        ({"bucket_mib": 1e-5}, GRADIENTS, 4),
        ({"bucket_mib": 1e-5, "accumulate": 2}, GRADIENTS, 4),
        ({"bucket_mib": 1000 / 2**20}, 2, 4),  # the last layer's 1000 bytes fill one
        ({"gradient_compression": "bf16"}, 1, 2),
        ({"gradient_compression": "bf16", "bucket_mib": 1e-5, "accumulate": 2}, GRADIENTS, 2),
        ({"precision": "bf16"}, 1, 4),
        ({"warmup_windows": 3}, 1, 4),
    ],
    ids=str,
)
def test_all_reduces_and_their_bytes_are_those_of_the_gradients(
    changes: dict[str, Any], allreduces: int, bytes_each_number: int, tmp_path: Path
) -> None:
    assert counts(ran(tmp_path, **changes)) == [allreduces, GRADIENT_BYTES // 4 * bytes_each_number]


def test_twice_the_accumulation_is_half_the_all_reduces_for_an_image(tmp_path: Path) -> None:
    rows = [ran(tmp_path / str(k), accumulate=k, bucket_mib=1000 / 2**20).row() for k in (1, 2, 4)]
    once, twice, often = (int(row[COUNTS[0]]) / int(row["effective_batch"]) for row in rows)
    assert once == 2 * twice == 4 * often == 2 / 8


def test_without_no_sync_each_pass_s_gradients_are_shared_and_the_count_shows_it(tmp_path: Path) -> None:
    lost = planted.well(otherwise(planted.without_no_sync, tmp_path, accumulate=3))
    assert counts(lost) == [3, 3 * GRADIENT_BYTES]


@pytest.mark.parametrize("changes", [{"warmup_windows": 0}, {"warmup_windows": 1}, {"processes": 1}], ids=str)
def test_where_nothing_was_counted_there_is_no_count(changes: dict[str, Any], tmp_path: Path) -> None:
    found = ran(tmp_path, **changes)
    assert counts(found) == [None, None]
    assert float(found.row()["compute_s"]) > 0


@pytest.mark.parametrize("odd", [3, 4])
def test_a_measured_window_with_another_number_of_all_reduces_leaves_no_count(odd: int, tmp_path: Path) -> None:
    assert counts(ran(tmp_path, functools.partial(planted.chatty, at=odd))) == [None, None]


def test_an_epoch_s_short_window_is_neither_counted_nor_compared(tmp_path: Path) -> None:
    """Full windows of four passes, and one of a single pass: without no_sync, of a quarter of the all-reduces."""
    trial, _ = two(accumulate=4, warmup_windows=5, epochs=3)
    load = functools.partial(planted.noise, train=2 * trial.effective_batch() + 4)
    codes = planted.group(2, planted.without_no_sync, trial, tmp_path, planted.smooth, load, said=tmp_path)
    assert counts(planted.well(planted.Ran(trial, tmp_path, codes))) == [4, 4 * GRADIENT_BYTES]


# The split of the step


def test_a_rank_that_waits_for_another_s_last_gradient_is_seen_to_wait(tmp_path: Path) -> None:
    found = ran(tmp_path, functools.partial(planted.late, seconds=0.02))
    steps, waits = (found.column("steps", name) for name in ("step_time_s", "exposed_communication_s"))
    assert all(0.02 <= wait <= step for wait, step in zip(waits, steps, strict=True))
    row, epoch = found.row(), found.rows("epochs")[0]
    for of in (row, epoch):
        assert 0.02 <= float(of["exposed_communication_s"]) <= max(waits[2:])
        # Rank 1's own: for it, the time is the gradient's.
        assert 0.02 <= float(of["compute_s"]) <= max(steps[2:])


@pytest.mark.parametrize("processes", [1, 2])
def test_computing_is_the_step_without_waiting_for_data(processes: int, tmp_path: Path) -> None:
    """20 ms a pass of computing, and 100 ms of waiting for a loader, by each rank."""
    trial, _ = two(pipeline="loader", accumulate=2, warmup_windows=0, processes=processes)
    build = functools.partial(planted.sleeper, each=(0.02,))
    load = functools.partial(planted.stalling, each=(0.025,), train=3 * trial.effective_batch())
    row = planted.well(planted.run(tmp_path, trial, build, load)).row()
    compute, wait = float(row["compute_s"]), float(row["data_wait_s"])
    step = float(row["measured_time_s"]) / 3
    assert wait >= 5 * 0.1 / 3  # the first micro-batch is fetched off the clock
    assert 0.04 <= compute <= step - wait / 2
    assert (row["exposed_communication_s"] == "") == (processes == 1)


# What is trained stays the same


def test_being_watched_changes_no_loss_and_no_weight_of_two_processes(tmp_path: Path) -> None:
    more: dict[str, Any] = {"accumulate": 2, "bucket_mib": 1e-5}
    watched = ran(tmp_path / "watched", **more)
    unwatched = planted.well(otherwise(planted.without_probe, tmp_path / "unwatched", "communication", **more))
    assert counts(watched)[0] == GRADIENTS
    assert unwatched.row()["compute_s"] == ""
    assert watched.column("steps", "train_loss") == unwatched.column("steps", "train_loss")
    one, other = (each.state()["model"] for each in (watched, unwatched))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_neither_the_buckets_nor_their_number_change_what_is_learnt_but_bf16_rounds_it(tmp_path: Path) -> None:
    whole, parts = (ran(tmp_path / str(mib), bucket_mib=mib).column("steps", "train_loss") for mib in (25.0, 1e-5))
    rounded = ran(tmp_path / "bf16", gradient_compression="bf16").column("steps", "train_loss")
    assert whole == parts
    assert whole[0] == rounded[0]
    assert whole != rounded
    assert rounded == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize("processes", [1, 2])
def test_bf16_that_the_backend_cannot_add_up_is_refused_where_gradients_are_shared(
    processes: int, tmp_path: Path
) -> None:
    trial, load = two(gradient_compression="bf16", processes=processes)
    codes = planted.group(processes, planted.without_bf16, trial, tmp_path, planted.smooth, load, said=tmp_path)
    found = planted.Ran(trial, tmp_path, codes)
    if processes == 1:
        assert planted.well(found).row()["status"] == "ok"
    else:
        assert "--gradient-compression is bf16, which gloo of torch" in planted.refused(found)
        assert not (tmp_path / "trials.csv").exists()


@pytest.mark.parametrize("changes", [{"optimizer_holds": "another_model"}, {"data": "synthetic"}], ids=str)
def test_other_trainings_are_counted_too(changes: dict[str, Any], tmp_path: Path) -> None:
    """resnet8's 78,042 parameters, and of another model's optimizer its head."""
    trial = planted.small(processes=2, warmup_windows=2, limit_train=64, **changes)
    row = planted.well(planted.run(tmp_path, trial)).row()
    assert int(row[COUNTS[1]]) == 4 * int(row["trainable_parameters"])
    assert float(row["exposed_communication_s"]) > 0
