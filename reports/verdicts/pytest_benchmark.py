"""pytest-benchmark's JSON, of its versions 3 to 5, as rows of trials.csv, so that the same commands compare it.

Each file is one launch of all its benchmarks. A benchmark is a trial; its step time is the median of its rounds. In the
files of `python -m launch gate --pytest`, "resbench" has the pair's number and round and the tests that failed, and a
benchmark's extra_info the times of its turns. What the file does not say of its machine or commit is unknown: version
3.0 has no CPU, 3.1 to 3.3 call its name otherwise, and a hook of the project may have replaced either.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UsageError
from bench.record.columns import columns
from reports import read
from reports.typed import CONTROL
from reports.verdicts.turns import TIMES, TURNS

LARGEST = 2**28  # bytes of a file
NAMES = [column.name for column in columns("trials")]
EXPERIMENT = "pytest-benchmark"
# What the plugin bench.pytest_plugins.step writes to a benchmark's extra_info, under these names.
CPU_TIME = "step_cpu_time_p50_s"
COUNTS: tuple[str, ...] = ("flops_per_window", "accessed_bytes_per_window", "operations_per_window")
COUNTS += ("casts_per_window", "waits_per_window", "peak_bytes_per_window")
KINDS = "operation_kinds"
OF_SPEED = ("cpu_capability", "variables")
# What differs between two runs of one benchmark, and what tells of all of them.
MEASURED: dict[str, Callable[[list[Any]], Any]] = {
    "step_time_p50_s": statistics.median,
    CPU_TIME: statistics.median,
    "peak_allocated_bytes": max,
}
OOM = "OutOfMemoryError"  # torch's
# Whatever the parts of a file of another program may raise.
MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
LARGEST_COUNT = 2**63 - 1


def launches(path: Path) -> pd.DataFrame:
    """The rows of a run folder, or of pytest-benchmark's JSON, a file or a folder of them."""
    found = files(path)
    return trials(found) if found else read.trials(path)


def files(path: Path) -> list[Path]:
    """The JSON files at this path, a file or a folder; none where it is a run folder."""
    if path.is_dir() and not (path / "trials.csv").exists():
        return sorted(each for each in path.rglob("*.json") if each.is_file())
    return [path] if path.suffix == ".json" and path.is_file() else []


def trials(paths: list[Path]) -> pd.DataFrame:
    """A row for each benchmark in each file. Raises UsageError if pytest-benchmark wrote none such."""
    rows = [row for number, path in enumerate(paths) for row in launch(path, number)]
    return pd.DataFrame(rows, columns=[*NAMES, TURNS, read.ROUND], dtype=object)


def launch(path: Path, number: int) -> list[dict[str, Any]]:
    """The rows of one file, the `number`th of its folder."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("it is too large")
        content = path.read_bytes()
        found = json.loads(content)
        own = found.get("resbench") or {}
        common = {
            "experiment": EXPERIMENT,
            "started_at": in_utc(found["datetime"]),
            "repeat": whole(own.get("pair", number)),
            read.ROUND: plain(own["round"]) if own.get("round") else None,
            "commit": commit(found.get("commit_info") or {}),
        }
        failed = [ending(each) for each in own.get("failed", [])]
        if not found["benchmarks"] and not failed:
            raise ValueError("it has no benchmark")
        here = machine(found.get("machine_info") or {})
        measured = [{**here, **each} for each in each_once(map(one, found["benchmarks"]))]
        digest = hashlib.blake2b(content, digest_size=6).hexdigest()
        return [{"launch_id": f"{digest}-{index}", **common, **each} for index, each in enumerate([*measured, *failed])]
    except MALFORMED as error:
        why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise UsageError(f"{path} is no JSON of pytest-benchmark: {plain(why)[:200]}") from error


def machine(info: dict[str, Any]) -> dict[str, Any]:
    """The cells about machine and versions. None: the file does not say."""
    own, cpu = ({**(info.get(name) or {})} for name in ("resbench", "cpu"))
    cpu_model = own.get("cpu_model") or cpu.get("brand_raw") or cpu.get("brand")
    python = info.get("python_version")
    return {
        "host": plain_or_none(own.get("host") or info.get("node")),
        "device_name": plain(own.get("device_name") or "unknown"),
        "cpu_model": None if cpu_model == "unknown" else plain_or_none(cpu_model),
        "torch": plain_or_none(own.get("torch") or (python and f"none, Python {python}")),
        **{name: number_or_none(own.get(name)) for name in ("device_count", "cpu_count", "threads")},
        **{name: plain(own[name]) for name in ("driver", "cuda", *OF_SPEED) if own.get(name)},
    }


def commit(info: dict[str, Any]) -> str:
    """As in trials.csv. Empty: pytest-benchmark found none."""
    sha = plain(info.get("id") or "unknown")
    return "" if sha in ("unknown", "unversioned") else sha[:12] + ("-dirty" if info.get("dirty") else "")


def in_utc(text: str) -> str:
    """The date as in trials.csv. Before its version 5, pytest-benchmark wrote UTC and did not say so."""
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).isoformat()


def one(benchmark: dict[str, Any]) -> dict[str, Any]:
    """A benchmark's own cells. Raises ValueError if its median is no time or a count is no whole number."""
    median = number_or_none(benchmark["stats"]["median"])
    if median is None or median <= 0:
        raise ValueError(f"{benchmark['fullname']} has a median of {benchmark['stats']['median']!r}")
    extra = benchmark.get("extra_info") or {}
    peak = number_or_none(extra.get("peak_allocated_bytes"))
    counts = {name: whole(extra[name]) for name in COUNTS if name in extra}
    kinds = {KINDS: plain(extra[KINDS])} if KINDS in extra else {}
    cpu_time = {CPU_TIME: number_or_none(extra[CPU_TIME])} if CPU_TIME in extra else {}
    found = {"status": "ok", "arm": plain(benchmark["fullname"]), "step_time_p50_s": median}
    return {**found, "peak_allocated_bytes": peak, **cpu_time, **counts, **kinds, **in_turns(extra.get("turns"))}


def each_once(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each benchmark: those of one name are one launch still, of which their median tells.

    Raises ValueError if they differ in anything but a measurement.
    """
    named: dict[str, list[dict[str, Any]]] = {}
    for each in found:
        named.setdefault(each["arm"], []).append(each)
    return [rows[0] if len(rows) == 1 else joined(rows) for rows in named.values()]


def joined(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row for those of one benchmark in one file: the medians of their times, the largest of their peaks."""
    whole_row = {}
    for name in {name: None for row in rows for name in row}:
        values = [row.get(name) for row in rows]
        if name in MEASURED and None not in values:
            whole_row[name] = MEASURED[name](values)
        elif any(value != values[0] for value in values):
            raise ValueError(f"it has {rows[0]['arm']} {len(rows)} times, with unlike {name}")
        else:
            whole_row[name] = values[0]
    return whole_row


def in_turns(turns: dict[str, Any] | None) -> dict[str, Any]:
    """The cells of a benchmark whose rounds took turns: with which other one, and the mean time in each turn."""
    if not turns:
        return {}
    of_turns = {name: turns.get(name, {}).items() for name in TIMES.values()}
    means = {name: {int(turn): each for turn, each in found if each > 0} for name, found in of_turns.items()}
    return {"launch_id": plain(turns["launch_id"]), "turns_with": " ".join(map(plain, turns["with"])), TURNS: means}


def ending(test: dict[str, Any]) -> dict[str, Any]:
    """The cells of a test that failed."""
    error = plain(test["error"])
    return {"status": "oom" if OOM in error else "crashed", "arm": plain(test["fullname"]), "error": error}


def whole(count: object) -> int:
    """The count. Raises ValueError if it is no whole number from 0 on."""
    if type(count) is not int or not 0 <= count <= LARGEST_COUNT:
        raise ValueError(f"{count!r:.40} is no count")
    return count


def number_or_none(value: object) -> float | None:
    """The value if it is a finite number."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def plain_or_none(text: object) -> str | None:
    """As `plain`. None: there is no text."""
    return plain(text) if text else None


def plain(text: object) -> str:
    """The text with a ? for each control character: a terminal would obey it."""
    return CONTROL.sub("?", str(text))
