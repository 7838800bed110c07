"""The exact gate: the operations that a step dispatches, counted by kind, must equal a baseline.

Counts do not vary from launch to launch, so there is no tolerance: a lower count fails as well as a higher one. The
baseline is a sorted CSV file in the repository with a line for each trial and metric. It holds for one version of
torch, because each version dispatches operations of its own.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench.called import as_called
from bench.errors import UsageError
from bench.record.columns import COUNTS, OLDER
from bench.record.csvfile import write_whole
from reports.tables.summary import row_of
from reports.tables.table import machine_line
from reports.verdicts.comparison import Comparison
from reports.verdicts.pytest_benchmark import EXPERIMENT, KINDS, launches
from reports.verdicts.report import ComparisonReport

METRICS = COUNTS
NAMED = ["model", "image_size", "micro_batch", "precision", "processes", "compile"]
HEAD = ["trial", "metric", "value"]
VERSION = ("all", "torch")

Counts = dict[tuple[str, str], str]


def gate(run: Path, path: Path) -> ComparisonReport:
    """Compare a run's counts with the baseline at `path`.

    The exit code is 0 if all counts are equal, 1 if some differ, 3 if there is no baseline for this version of torch.
    Unless it is 0, the run's counts are written to `candidate(path)`, to be accepted. Raises UsageError if the run did
    not count each trial twice or if its two counts differ.
    """
    table = launches(run)
    found, baseline = counts(table), read(path)
    machine = machine_line(row_of(table.iloc[-1].to_dict()))
    if baseline != found:
        write_whole(candidate(path), as_csv(found))
    else:  # what an earlier run left there has been put right
        candidate(path).unlink(missing_ok=True)
    if baseline.get(VERSION) != found[VERSION]:
        was = f"is of torch {baseline[VERSION]}" if VERSION in baseline else "is not there"
        each = Comparison("all", "not comparable", "torch", why=f"{path} {was}, the run of torch {found[VERSION]}")
        return ComparisonReport(f"{run} against {path}", machine, [each], 3)
    changed = differences(baseline, found)
    equal = [key for key in sorted(found) if key != VERSION and baseline.get(key) == found[key]]
    same = [Comparison(key[0], "equivalent", key[1], count, count) for key in equal if (count := number(found[key]))]
    return ComparisonReport(f"{run} against {path}", machine, [*changed, *same], 1 if changed else 0)


def number(text: str | None) -> list[float]:
    """A count as the values of one side of a Comparison; none if the text is no count."""
    return [float(text)] if text and text.isdecimal() else []


def candidate(path: Path) -> Path:
    """The file, beside a baseline, of the counts that may be accepted as the next one."""
    return path.with_name(f"{path.name}.new")


def show(report: ComparisonReport, path: Path) -> None:
    """Print which counts are new, missing or changed, and how to accept them."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    accept = as_called(f"if that is meant: python -m reports baseline accept {path}")
    changed = [each for each in report.comparisons if each.verdict == "changed"]
    if report.code == 0:
        console.print(f"{len(report.comparisons)} counts are those of {path}")
    elif report.code == 3:
        console.print(f"not comparable: {report.comparisons[0].why}; {accept}")
    else:
        console.print(f"{len(changed)} of {len(report.comparisons)} counts are not those of {path}; {accept}")
        for each in changed:
            console.print(f"  {each.trial}: {each.metric} {each.why}")


def renew(path: Path, accept: bool) -> None:
    """Print how the candidate differs from the baseline; with `accept`, make it the baseline.

    Raises UsageError if there is no candidate.
    """
    new = candidate(path)
    found = read(new)
    if not found:
        raise UsageError(f"no {new}: gate exact leaves it where counts differ; run that first")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for each in differences(read(path), found):
        console.print(f"{each.trial}: {each.metric} {each.why}")
    if accept:
        write_whole(path, as_csv(found))
        new.unlink()
        console.print(f"{path} has these {len(found) - 1} counts now")


def differences(baseline: Counts, found: Counts) -> list[Comparison]:
    """The counts that are new, missing or changed: trial by trial, the sums first and then the kinds of operations."""
    changed = []
    for key in sorted(baseline.keys() | found.keys(), key=lambda key: (key[0], key[1].startswith(KINDS), key[1])):
        was, now = baseline.get(key), found.get(key)
        if was != now:
            why = f"{was} -> {now}" if was and now else f"new: {now}" if now else f"missing: was {was}"
            before, after = (number(was), number(now)) if was and now else ([], [])
            changed.append(Comparison(key[0], "changed", key[1], before, after, why=why))
    return changed


def counts(table: pd.DataFrame) -> Counts:
    """(trial, metric) -> its count, as text. Raises UsageError unless each trial was counted twice with equal results.

    A single count proves nothing: whether the trial dispatches the same operations each time only a second one shows.
    """
    table = table.drop_duplicates("launch_id")  # a copied row is no second count
    rows = [row_of(record) for record in table.to_dict("records")]
    # All of pytest-benchmark's files must agree; of a run folder's launches of one trial, the last two.
    files = len({row["repeat"] for row in rows if row["experiment"] == EXPERIMENT})
    # Benchmarks may count no step. One that the baseline has and that counts none now is reported as missing.
    rows = [row for row in rows if row["status"] != "interrupted" and (row["experiment"] != EXPERIMENT or row[KINDS])]
    if not rows:
        raise UsageError("no trial was counted in this run; give one of python -m launch run studies/exact.toml")
    versions = {str(row["torch"]).partition("+")[0] for row in rows}
    if len(versions) > 1:
        raise UsageError(f"the run has rows of torch {' and '.join(sorted(versions))}; run it anew")
    found: dict[str, list[Counts]] = {}
    for row in rows:
        if row["status"] != "ok":
            raise UsageError(
                f"{name(row)} ended as {row['status']} ({row['error']}); only trials that end well are counted"
            )
        if row["device_name"] != "cpu":
            raise UsageError(f"{name(row)} ran on {row['device_name']}; exact counts are those of a CPU")
        found.setdefault(name(row), []).append(of_row(name(row), row))
    merged: Counts = {VERSION: versions.pop()}
    for trial, each in found.items():
        if len(each) < 2:
            how = "two of pytest's files" if files else "--repeats 2, as studies/exact.toml does"
            raise UsageError(f"{trial} was counted once; give {how}")
        if len(each) < files:
            raise UsageError(f"{trial} is in {len(each)} of {files} files; give a folder with those of one commit")
        for one in each[-max(2, files) : -1]:  # a run folder may hold earlier ones
            if unlike := differences(one, each[-1]):
                first = f"{trial}: {unlike[0].metric} {unlike[0].why}"
                raise UsageError(f"two counts of one trial differ, {first}; only exact counts can be compared")
        merged |= each[-1]
    return merged


def name(row: Mapping[str, object]) -> str:
    """A trial's name in the baseline; it does not depend on which other trials are there."""
    settings = [f"{setting}={row[setting]}" for setting in NAMED if row[setting] is not None]
    return " ".join([f"{row['experiment']} {row['arm']}", *settings])


def of_row(trial: str, row: Mapping[str, object]) -> Counts:
    """A launch's counts. Raises UsageError if it has none."""
    if row[KINDS] is None:
        raise UsageError(f"{trial} was not counted; give --warmup-windows 3 or more, as studies/exact.toml does")
    return known(trial, row)


def known(trial: str, row: Mapping[str, object]) -> Counts:
    """Those of a launch's counts that it has. Raises UsageError if one is no count."""
    found = {(trial, name): str(row[name]) for name in METRICS if row[name] is not None}
    for part in [] if row[KINDS] is None else str(row[KINDS]).split(", "):
        kind, _, count = part.rpartition(" ")
        key = (trial, f"{KINDS} {kind}")
        if not kind or not count.isdecimal() or key in found:
            raise UsageError(f"{trial} has no counts of {KINDS}: {part[:40]!r} is none; count it anew")
        found[key] = count
    return found


def read(path: Path) -> Counts:
    """The baseline; empty if there is no file. Raises UsageError if the file is no baseline."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the baseline {path}: {error}") from error
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error:
        rows = []
    if not rows or rows[0] != HEAD or any(len(row) != len(HEAD) for row in rows):
        raise UsageError(f"{path} is no baseline: its lines have to be {','.join(HEAD)}")
    found = {(current_name(trial), metric): value for trial, metric, value in rows[1:]}
    if len(found) < len(rows) - 1:
        raise UsageError(f"{path} has a trial's metric twice; accept a run's counts anew")
    return found


def current_name(trial: str) -> str:
    """A trial's name, with the values of settings that an earlier version spelt differently as they are spelt now."""
    for name, values in OLDER.items():
        for old, new in values.items():
            trial = trial.replace(f" {name}={old.capitalize()}", f" {name}={new}")
    return trial


def as_csv(found: Counts) -> str:
    """The text of a baseline, sorted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEAD)
    writer.writerows([*key, found[key]] for key in sorted(found))
    return text.getvalue()
