"""One window through torch's profiler, after a trial's row is written: what the trial recorded cannot change any more.

All ranks' events go into one file for https://ui.perfetto.dev or chrome://tracing, traces/LAUNCH_ID.json.gz, and the
time of each operation into a table, traces/LAUNCH_ID.csv. The profiler takes time of its own, which is in both.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import statistics
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, schedule

from bench.data.pipeline import InputPipeline
from bench.errors import UsageError
from bench.failure import signals
from bench.failure.ending import Ending
from bench.instruments import turns
from bench.record.csvfile import write_table, write_whole
from bench.record.progress import beat
from bench.record.run_folder import EVENTS, OPERATIONS
from bench.terminal import say
from bench.training.group import Group
from bench.training.loop import Training, run_window
from bench.training.meter import Meter
from bench.training.windows import epoch_windows
from bench.trial import Trial

# torch's own name of a step in the profiler's table. Its self time is the time between operations: Python's.
STEP, OUTSIDE = "ProfilerStep*", "outside operations"
# Of NAME.csv. Times are those of the operation itself, without the operations that it calls.
COLUMNS = ("operation", "calls", "self_cpu_time_s", "self_device_time_s")
# In the merged file a rank's events are process RANK_PIDS * rank, those on its GPU number n are process ... + 1 + n.
RANK_PIDS = 1000
# Flows, such as from a launch to its kernel, are numbered in each rank from 0, with 32 bits.
RANK_FLOWS = 2**33


class Spent(NamedTuple):
    """What one rank spent in an operation itself, not in those that it calls: calls and microseconds.

    `device_us`: on the GPU, in the kernels that it started; None: there is none.
    """

    calls: int
    cpu_us: float
    device_us: float | None


def trace(trial: Trial, training: Training, pipeline: InputPipeline, group: Group, name: Path, ending: Ending) -> None:
    """As `record`, where no error matters to the trial: its row is written. One ends this process, with a message."""
    signals.end_at_once()
    if ending.limit is not None:
        ending.limit.remove()  # what the profiler takes is not the trial's memory
    try:
        # The other ranks wait for rank 0 in the first collective, which is before the window.
        with turns.alone() if group.rank == 0 else contextlib.nullcontext():
            record(trial, training, pipeline, group, name)
    except Exception as error:
        why = str(error) if isinstance(error, UsageError) else "".join(traceback.format_exception(error)).rstrip()
        say(f"{why}\nno trace of this launch, as said above; its row is written")
        ending.leave(1)  # and no other rank waits for this one: a launcher ends them all


def record(trial: Trial, training: Training, pipeline: InputPipeline, group: Group, name: Path) -> None:
    """Train one more window under the profiler and write its files, on rank 0: NAME.json.gz and NAME.csv.

    All ranks call it together. The weights move on by two windows, as a first one warms the profiler up. Raises
    UsageError if a file cannot be written.
    """
    beat()
    profiler = profiled(trial, training, pipeline, group)
    beat()
    exported = export(profiler)
    seconds, nanoseconds = group.gather(list(map(float, divmod(exported["baseTimeNanoseconds"], 10**9))))[0]
    events = events_of(exported, group.rank, os.getpid(), int(seconds) * 10**9 + int(nanoseconds))
    text = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    traces = group.gather_bytes(gzip.compress(text.encode(), 6))
    tables = group.gather_bytes(json.dumps(spent(profiler)).encode())
    if group.rank == 0:
        make_folder(name.parent)
        write_whole(name.with_suffix(EVENTS), merged(traces))
        each = [{operation: Spent(*row) for operation, row in json.loads(table).items()} for table in tables]
        write_table(name.with_suffix(OPERATIONS), table_of(each))
        say(f"traced one more step: open {name.with_suffix(EVENTS)} in https://ui.perfetto.dev")


def make_folder(path: Path) -> None:
    """Make the folder of traces. Raises UsageError if it cannot be."""
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {path}: {error.strerror}; choose another --out") from error


def profiled(trial: Trial, training: Training, pipeline: InputPipeline, group: Group) -> profile:
    """The profiler of a full window, or of the only one if an epoch has no full one.

    The window before it, of the same images, is run under the profiler too and dropped: its first operations take
    longer, while the profiler starts.
    """
    activities = [ProfilerActivity.CPU]
    if group.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    else:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would report that there is no GPU, as an error
    images = len(pipeline.data.train)
    window = next(epoch_windows(images, trial.micro_batch, trial.accumulate, trial.processes, group.rank))
    batches = pipeline.train(trial.epochs, window.passes * 2)
    training.model.train()
    unmeasured = Meter([], group.gather, 0, group.device)
    with profile(activities=activities, schedule=schedule(wait=0, warmup=1, active=1, repeat=1)) as profiler:
        for _ in range(2):
            run_window(training, window, batches, unmeasured)
            if group.device.type == "cuda":
                torch.cuda.synchronize(group.device)  # a window's kernels belong to its own step
            profiler.step()
    return profiler


def export(profiler: profile) -> dict[str, Any]:
    """What torch's export_chrome_trace writes to a file."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "trace.json"
        profiler.export_chrome_trace(str(path))
        found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def spent(profiler: profile) -> dict[str, Spent]:
    """What this rank spent in each operation. Kernels are not operations: their time is that of what started them."""
    found: dict[str, Spent] = {}
    events = profiler.key_averages()
    # A GPU whose driver lets nobody trace it shows no kernels: then their time is unknown, not 0.
    on_device = any(event.device_type != DeviceType.CPU for event in events)
    for event in events:
        if event.device_type == DeviceType.CPU:
            name = OUTSIDE if event.key == STEP else event.key
            before = found.get(name, Spent(0, 0.0, 0.0))
            device_us = (before.device_us or 0.0) + event.self_device_time_total if on_device else None
            found[name] = Spent(before.calls + event.count, before.cpu_us + event.self_cpu_time_total, device_us)
    return found


def table_of(ranks: Sequence[Mapping[str, Spent]]) -> list[dict[str, Any]]:
    """The rows of NAME.csv: of each operation the ranks' medians, the longest first.

    On a rank without an operation it took no calls and no time.
    """
    on_device = all(row.device_us is not None for rank in ranks for row in rank.values())
    none = Spent(0, 0.0, 0.0)
    rows = []
    for operation in {name: None for rank in ranks for name in rank}:
        each = [rank.get(operation, none) for rank in ranks]
        device_s = statistics.median(row.device_us or 0.0 for row in each) / 1e6 if on_device else None
        cpu_s = statistics.median(row.cpu_us for row in each) / 1e6
        calls = statistics.median_low(row.calls for row in each)
        rows.append(dict(zip(COLUMNS, (operation, calls, cpu_s, device_s), strict=True)))
    return sorted(rows, key=lambda row: -row[COLUMNS[3 if on_device else 2]])


def events_of(exported: Mapping[str, Any], rank: int, pid: int, base_ns: int) -> list[dict[str, Any]]:
    """A rank's events, to stand in one file with those of others: the rank and its GPUs are processes with its name.

    `exported`: what torch exports, in Google's Trace Event Format; there `pid` is the rank's process, and a GPU's is
    its number. Times are microseconds from a moment that the export names; here from `base_ns`, which all ranks share.
    """
    shift_us = (exported["baseTimeNanoseconds"] - base_ns) / 1000
    events = []
    # The profiler's own marks stand under processes that are no numbers. GPUs that were not used have names alone.
    used = {event["pid"] for event in exported["traceEvents"] if event["ph"] == "X" and isinstance(event["pid"], int)}
    for event in exported["traceEvents"]:
        if event.get("pid") not in used or event["name"].startswith("process_"):
            continue
        moved = {**event, "pid": new_pid(rank, event["pid"], pid), "ts": event.get("ts", 0) + shift_us}
        if isinstance(event.get("id"), int):
            moved["id"] = rank * RANK_FLOWS + event["id"]
        events.append(moved)
    for old in sorted(used, key=lambda old: new_pid(rank, old, pid)):
        new = new_pid(rank, old, pid)
        about = {"ph": "M", "pid": new, "tid": 0, "ts": 0}
        name = f"rank {rank}" if old == pid else f"rank {rank}, GPU {old}"
        events.append({**about, "name": "process_name", "args": {"name": name}})
        events.append({**about, "name": "process_sort_index", "args": {"sort_index": new}})
    return events


def new_pid(rank: int, old: int, own: int) -> int:
    """The process number in the merged file of an event with the number `old`, on a rank whose process is `own`."""
    return RANK_PIDS * rank + (0 if old == own else 1 + old)


def merged(traces: Sequence[bytes]) -> bytes:
    """One trace, compressed, of the ranks' compressed events. Not their bytes in a row, which some viewers refuse."""
    events = b",\n".join(gzip.decompress(trace) for trace in traces)
    return gzip.compress(b'{"displayTimeUnit":"ms","traceEvents":[\n' + events + b"\n]}\n", 6)
