"""A traced trial: its row and weights are those of an untraced one, and its two files hold what all ranks did."""

from __future__ import annotations

import csv
import fcntl
import functools
import gzip
import json
import os
from pathlib import Path
from typing import Any

import planted
import pytest
import torch

from bench.column import Column
from bench.instruments import turns
from bench.record.columns import columns
from bench.training.traced_window import OUTSIDE, Spent, events_of, merged, table_of
from bench.variables import TURNS

NETWORK = functools.partial(planted.smooth, batch_norm=True)
# Columns that no two launches share.
OWN = {"launch_id", "started_at", "log", "environment", "step_time_cv", "optimizer_steps_per_s"}
OWN |= {"slowest_rank", "slowest_rank_excess", "slowest_rank_device"}


def is_exact(column: Column) -> bool:
    timed = column.unit in ("s", "images/s", "J", "W") or column.name.endswith("_rss_bytes")
    return not timed and column.name not in OWN


@pytest.fixture(scope="module", params=[1, 2])
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> planted.Ran:
    """Two epochs of windows of two passes."""
    trial = planted.settings(processes=request.param, micro_batch=4 // request.param, accumulate=2, epochs=2)
    return planted.well(planted.run(tmp_path_factory.mktemp("traced"), trial, NETWORK, planted.noise, trace=True))


def trace_of(ran: planted.Ran) -> Any:
    return json.loads(gzip.decompress((ran.folder / "traces" / f"{ran.row()['launch_id']}.json.gz").read_bytes()))


def table_in(ran: planted.Ran) -> dict[str, dict[str, str]]:
    with open(ran.folder / "traces" / f"{ran.row()['launch_id']}.csv", newline="") as file:
        return {row["operation"]: row for row in csv.DictReader(file)}


def test_a_traced_trial_leaves_what_an_untraced_one_does(traced: planted.Ran, tmp_path: Path) -> None:
    plain = planted.well(planted.run(tmp_path, traced.trial, NETWORK, planted.noise))
    exact = [column.name for column in columns("trials") if is_exact(column)]
    assert {"eval_accuracy", "eval_loss", "optimizer_steps", "images_seen", "train_loss", "trial_key"} <= set(exact)
    assert {name: traced.row()[name] for name in exact} == {name: plain.row()[name] for name in exact}
    assert traced.column("steps", "train_loss") == plain.column("steps", "train_loss")
    ours, theirs = traced.state(), plain.state()
    assert ours["progress"] == theirs["progress"]
    assert all(torch.equal(ours["model"][name], value) for name, value in theirs["model"].items())
    assert not (plain.folder / "traces").exists()
    assert f"open {traced.folder}/traces/{traced.row()['launch_id']}.json.gz in https://" in traced.said()


def test_one_file_has_the_operations_of_all_ranks(traced: planted.Ran) -> None:
    events = trace_of(traced)["traceEvents"]
    named = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    assert list(named.values()) == [f"rank {rank}" for rank in range(traced.trial.processes)]
    assert {event["pid"] for event in events} == set(named)
    for pid in named:
        names = [event["name"] for event in events if event["pid"] == pid and event["ph"] == "X"]
        assert {"aten::convolution", "aten::convolution_backward", "aten::_fused_sgd_"} <= set(names)
        assert names.count("aten::_log_softmax") == 2, "one window of two passes, without the one that warms up"
    flows = [event["id"] for event in events if event["ph"] == "s"]
    assert len(flows) == len(set(flows))
    starts = [min(e["ts"] for e in events if e["pid"] == pid and e["ph"] == "X") for pid in named]
    assert max(starts) - min(starts) < 60e6, "in microseconds, from one moment for all"


def test_the_table_has_the_calls_and_times_of_each_operation(traced: planted.Ran) -> None:
    table = table_in(traced)
    events = [event for event in trace_of(traced)["traceEvents"] if event["ph"] == "X"]
    for name in ("aten::convolution", "aten::_log_softmax", "aten::_fused_sgd_"):
        ranks = traced.trial.processes
        assert int(table[name]["calls"]) * ranks == sum(event["name"] == name for event in events)
    assert {row["self_device_time_s"] for row in table.values()} == {""}
    times = [float(row["self_cpu_time_s"]) for row in table.values()]
    assert times == sorted(times, reverse=True)
    assert times[0] > 0


def test_what_python_takes_between_operations_is_told_in_seconds(tmp_path: Path) -> None:
    """Each of the two passes of a window sleeps 30 ms."""
    trial = planted.settings(micro_batch=4, accumulate=2)
    build = functools.partial(planted.sleeper, each=(0.03,))
    ran = planted.well(planted.run(tmp_path, trial, build, planted.noise, trace=True))
    assert 0.06 <= float(table_in(ran)[OUTSIDE]["self_cpu_time_s"]) < 6


@pytest.mark.parametrize("processes", [1, 2])
def test_a_window_that_fails_under_the_profiler_costs_no_row(processes: int, tmp_path: Path) -> None:
    """Training takes four passes a rank; the sixth is the traced window's."""
    trial = planted.settings(micro_batch=4 // processes, processes=processes)
    build = functools.partial(planted.failing, at=5, how="raise", build=planted.smooth, rank=processes - 1)
    ran = planted.run(tmp_path, trial, build, functools.partial(planted.noise, train=16), trace=True)
    assert 0 not in ran.codes
    assert (ran.row()["status"], ran.row()["error"]) == ("ok", "")
    assert "planted failure" in ran.said()
    assert "no trace of this launch, as said above; its row is written" in ran.said()
    assert list((tmp_path / "traces").glob("*")) == []


def test_a_trace_that_cannot_be_written_is_one_sentence_and_costs_no_row(tmp_path: Path) -> None:
    (tmp_path / "traces").write_text("")
    ran = planted.run(tmp_path, planted.settings(micro_batch=4), planted.smooth, planted.noise, trace=True)
    assert (ran.codes, ran.row()["status"]) == ([1], "ok")
    assert "traces: File exists; choose another --out" in ran.said()
    assert "Traceback" not in ran.said()


# Exports as torch writes them, of two machines with a GPU each


def exported(pid: int, base_ns: int, moment_us: float) -> dict[str, Any]:
    events = [
        {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "ts": moment_us, "args": {"name": "python"}},
        {"ph": "M", "name": "process_name", "pid": 3, "tid": 0, "ts": moment_us, "args": {"name": "python"}},
        {"ph": "M", "name": "process_name", "pid": 4, "tid": 0, "ts": moment_us, "args": {"name": "python"}},
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": 7, "ts": moment_us, "args": {"name": "thread 7"}},
        {"ph": "X", "name": "aten::mm", "cat": "cpu_op", "pid": pid, "tid": 7, "ts": moment_us, "dur": 5.0},
        {"ph": "s", "name": "ac2g", "cat": "ac2g", "id": 9, "pid": pid, "tid": 7, "ts": moment_us},
        {"ph": "f", "name": "ac2g", "cat": "ac2g", "id": 9, "pid": 3, "tid": 20, "ts": moment_us + 4, "bp": "e"},
        {"ph": "X", "name": "gemm", "cat": "kernel", "pid": 3, "tid": 20, "ts": moment_us + 4, "dur": 2.5},
        {"ph": "X", "name": "PyTorch Profiler (0)", "cat": "Trace", "pid": "Spans", "tid": "x", "ts": 1.0, "dur": 9.0},
        {"ph": "i", "s": "g", "name": "Record Window End", "pid": "", "tid": "", "ts": 1.0},
    ]
    return {"baseTimeNanoseconds": base_ns, "traceEvents": events}


def test_ranks_and_their_gpus_stand_apart_on_one_time_axis() -> None:
    """Both processes have the number 41; rank 1's operation began 2 s after rank 0's."""
    base = 1_790_857_026_000_000_000
    ranks = [exported(41, base, 1000.5), exported(41, base + 3 * 10**9, 1000.5 - 10**6)]
    parts = [events_of(each, rank, 41, base) for rank, each in enumerate(ranks)]
    texts = [gzip.compress(",".join(map(json.dumps, part)).encode()) for part in parts]
    events = json.loads(gzip.decompress(merged(texts)))["traceEvents"]
    shown = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert list(shown.values()) == ["rank 0", "rank 0, GPU 3", "rank 1", "rank 1, GPU 3"]
    where = {(e["name"], shown[e["pid"]]): e["ts"] for e in events if e["ph"] == "X"}
    assert where == {
        ("aten::mm", "rank 0"): 1000.5,
        ("gemm", "rank 0, GPU 3"): 1004.5,
        ("aten::mm", "rank 1"): 2_001_000.5,
        ("gemm", "rank 1, GPU 3"): 2_001_004.5,
    }
    ends = {phase: [e["id"] for e in events if e["ph"] == phase] for phase in "sf"}
    assert ends["s"] == ends["f"]
    assert len(set(ends["s"])) == 2


def test_the_table_takes_the_ranks_medians_and_the_longest_on_the_device_first() -> None:
    ranks = [
        {"a": Spent(2, 10.0, 1e6), "b": Spent(4, 30.0, 5e6)},
        {"a": Spent(2, 20.0, 3e6), "b": Spent(4, 50.0, 6e6)},
        {"a": Spent(2, 90.0, 2e6), "only here": Spent(1, 7.0, 0.0)},
    ]
    rows = [tuple(row.values()) for row in table_of(ranks)]
    assert rows == [("b", 4, 30e-6, 5.0), ("a", 2, 20e-6, 2.0), ("only here", 0, 0.0, 0.0)]
    on_cpu = [tuple(row.values()) for row in table_of([{"a": Spent(2, 10.0, None), "b": Spent(1, 20.0, None)}])]
    assert on_cpu == [("b", 1, 20e-6, None), ("a", 2, 10e-6, None)]


def test_sides_of_a_match_are_traced_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each side has a socket of its own in the referee's folder."""

    def is_free() -> bool:
        folder = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(folder)
        return True

    monkeypatch.setenv(TURNS, str(tmp_path / "base"))
    with turns.alone():
        assert not is_free()
    assert is_free()
    monkeypatch.delenv(TURNS)
    with turns.alone():
        assert is_free()
