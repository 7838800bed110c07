"""Why did a trial change? The exact counts of a step that differ between BASE and HEAD, and its traced operations.

A count that differs is a fact: it does not vary from launch to launch. The times of operations, where both sides were
run with --trace, are of one step of each launch and with the profiler's own time in them: they say where to look.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.errors import UsageError
from bench.record.run_folder import LAUNCH_ID, OPERATIONS, RunFolder
from reports.tables.summary import Row
from reports.typed import CONTROL
from reports.verdicts import exact
from reports.verdicts.comparison import Comparison, OperationTime, Reasons
from reports.verdicts.exact import KINDS

SIDES = ("BASE", "HEAD")
SHOWN = 10  # operations
LARGEST_TABLE = 2**24  # bytes
ALL = "all operations"
# Of a table of operations, as bench.training.traced_window writes it: its times, that of the device first.
TIMES = {"self_device_time_s": "on the device", "self_cpu_time_s": "on the CPU by the wall clock"}
# Operation -> its calls and these times in s; no time: the machine has no such thing.
Table = dict[str, tuple[int, dict[str, float]]]


def of_trials(
    found: Sequence[Comparison], sides: Mapping[str, tuple[Sequence[Row], Sequence[Row]]], before: Path, after: Path
) -> list[Reasons]:
    """The reasons for each trial that was compared, but for those of which there is neither a count nor a trace.

    `sides`: a trial's name -> its launches in the folders `before` and `after` that ended well.
    """
    left_out = {each.trial for each in found if each.verdict == "not comparable" and not each.metric}
    both = {trial: rows for trial, rows in sides.items() if all(rows) and trial not in left_out}
    reasons = [of_trial(trial, base, head, before, after) for trial, (base, head) in both.items()]
    return [each for each in reasons if each.summary or each.operations or each.notes]


def of_trial(trial: str, base: Sequence[Row], head: Sequence[Row], before: Path, after: Path) -> Reasons:
    """The reasons for one trial, from its launches in the folders `before` and `after`."""
    try:
        summary, changed, notes = of_counts(trial, base, head)
    except UsageError as error:  # a cell that holds no counts; the times of the trial are judged all the same
        summary, changed, notes = str(error), [], []
    tables = []
    for rows, folder in ((base, before), (head, after)):
        read, unread = tables_of(rows, folder)
        tables.append(read)
        notes += unread
    if not all(tables):
        return Reasons(trial, summary, changed, notes)
    operations, about = of_times(*tables)
    return Reasons(trial, summary, changed, notes, operations, about)


def of_counts(trial: str, base: Sequence[Row], head: Sequence[Row]) -> tuple[str, list[Comparison], list[str]]:
    """(what the exact counts say in a line, those that differ, what is not known). Raises UsageError if one is none."""
    notes: list[str] = []
    values = [counted(trial, rows) for rows in (base, head)]
    if not any(values):
        return "", [], []
    unlike: set[tuple[str, str]] = set()
    for side, found in zip(SIDES, values, strict=True):
        if own := {key for key, each in found.items() if len(each) > 1}:
            unlike |= own
            notes.append(f"the launches of {side} do not agree in {listed(own, found)}")
    is_counted = [any(metric.startswith(KINDS) for _, metric in found) for found in values]
    if without := [side for side, known in zip(SIDES, is_counted, strict=True) if not known]:
        notes.append(f"the operations of {' and '.join(without)} were not counted; give --warmup-windows 3 or more")
    # An operation that one side alone has is new. What was counted on one side alone is no difference.
    keys = values[0].keys() & values[1].keys() if without else values[0].keys() | values[1].keys()
    before, after = ({key: min(found[key]) for key in keys - unlike if key in found} for found in values)
    changed = exact.differences(before, after)
    if changed:
        return f"{len(changed)} exact counts differ" if len(changed) > 1 else "1 exact count differs", changed, notes
    if not before:
        return "no exact counts are known of both sides", [], notes
    which = "other " if unlike else "known " if without else ""
    return f"the {which}exact counts of both sides are equal", [], notes


def counted(trial: str, rows: Sequence[Row]) -> dict[tuple[str, str], set[str]]:
    """(trial, metric) -> its counts in these launches, of which exact ones are one."""
    launches = [exact.known(trial, row) for row in rows]
    found = {key: {counts[key] for counts in launches if key in counts} for counts in launches for key in counts}
    for key, row, counts in ((key, row, counts) for key in found for row, counts in zip(rows, launches, strict=True)):
        if key[1].startswith(f"{KINDS} ") and row[KINDS] is not None and key not in counts:
            found[key].add("0")  # a launch without an operation
    return found


def listed(keys: Iterable[tuple[str, str]], found: Mapping[tuple[str, str], set[str]]) -> str:
    """The first three of these counts with their values, and how many more there are."""
    all_of_them = [f"{key[1]} ({', '.join(sorted(found[key]))})" for key in sorted(keys)]
    more = f" and {len(all_of_them) - 3} more counts" if len(all_of_them) > 3 else ""
    return ", ".join(all_of_them[:3]) + more


def tables_of(rows: Iterable[Row], folder: Path) -> tuple[list[Table], list[str]]:
    """(the tables of operations of these launches, those that cannot be read); a launch without a trace has none."""
    tables, unread = [], []
    for launch_id in (str(row["launch_id"]) for row in rows):
        path = RunFolder(folder).traces() / f"{launch_id}{OPERATIONS}"
        if not LAUNCH_ID.fullmatch(launch_id) or not path.is_file():
            continue
        try:
            tables.append(table(path))
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            unread.append(f"{path} is no table of operations ({error}); it is left out")
    return tables, unread


def table(path: Path) -> Table:
    """A launch's table of operations. Raises an OSError, ValueError, KeyError, TypeError or csv.Error if it is none."""
    if path.stat().st_size > LARGEST_TABLE:
        raise ValueError("it is too large")
    found: Table = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, strict=True):
            times = {name: float(row[name]) for name in TIMES if row[name] != ""}
            if not all(0 <= time < 1e6 for time in times.values()):
                raise ValueError(f"{row['operation'][:40]!r} has no time")
            found[CONTROL.sub("?", row["operation"])] = (int(row["calls"]), times)
    if not found:
        raise ValueError("it has no operation")
    sums = {name: sum(times.get(name, math.nan) for _, times in found.values()) for name in TIMES}
    known = {name: seconds for name, seconds in sums.items() if not math.isnan(seconds)}
    return {**found, ALL: (sum(calls for calls, _ in found.values()), known)}


def of_times(base: Sequence[Table], head: Sequence[Table]) -> tuple[list[OperationTime], str]:
    """(the operations whose time differs most, and all of them together at the end; what these times are).

    An operation that a launch does not have took no time there.
    """
    both = (*base, *head)
    name = next((name for name in TIMES if all(name in times for each in both for _, times in each.values())), None)
    if name is None:
        return [], ""
    found = []
    for operation in {operation: None for each in both for operation in each}:
        sides = [[each.get(operation, (0, {name: 0.0})) for each in tables] for tables in (base, head)]
        times = [[times[name] for _, times in side] for side in sides]
        calls = [statistics.median_low(calls for calls, _ in side) for side in sides]
        found.append(OperationTime(operation, times[0], times[1], (calls[0], calls[1])))
    found.sort(key=lambda each: (each.operation == ALL, -abs(each.difference_s())))
    most = [each for each in found[:-1][:SHOWN] if each.difference_s()]
    what = f"{TIMES[name]}, without the operations that it calls"
    return [*most, found[-1]], f"{what}; in one traced step of {len(base)} and {len(head)} launches"
