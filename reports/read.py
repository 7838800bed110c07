"""Rows of a run folder as typed tables, whoever wrote them and whenever."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pandas as pd

from bench.record import RunFolder, UsageError, columns, size
from reports.lines import BLOCK, Lines

CONTROL = r"[\x00-\x1f\x7f-\x9f]"  # would be an order to the terminal
LARGEST_TRIALS = 2**28  # bytes; a hundred thousand rows
# The same whether pyarrow is installed or not.
TEXT = pd.StringDtype("python")
DTYPES: dict[str, Any] = {"str": TEXT, "int": "Int64", "float": "Float64", "bool": "boolean"}


def trials(folder: Path) -> pd.DataFrame:
    """trials.csv, a column for each that this version knows; what an older one did not write is missing (NA).

    UsageError: there is no such file, or it is none of ours.
    """
    text = pd.DataFrame(_trial_rows(folder), dtype=TEXT)
    table = {column.name: _typed(text, column.name, column.type) for column in columns("trials")}
    return pd.DataFrame(table)


def damaged_trials(folder: Path) -> int:
    """How many rows of trials.csv have too few cells or too many, which `trials` reads as far as they go.

    UsageError: as `trials`.
    """
    return sum(None in row or None in row.values() for row in _trial_rows(folder))


def _trial_rows(folder: Path) -> list[dict[str, str]]:
    path = folder / "trials.csv"
    if not path.is_file():
        raise UsageError(f"no {path}; give the --out folder of a run")
    if (found := path.stat().st_size) > LARGEST_TRIALS:
        raise UsageError(f"{path} is too large for one that a run wrote, {size(found)}; give the --out folder of a run")
    try:
        rows = RunFolder(folder).rows("trials")
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}; give the --out folder of a run") from error
    if rows and "launch_id" not in rows[0]:
        raise UsageError(f"{path} has no column launch_id, so no run wrote it; give the --out folder of a run")
    return rows


def epochs(folder: Path) -> tuple[pd.DataFrame, int]:
    """epochs.csv as `trials` reads trials.csv, and how many rows could not be read; empty where there is no file."""
    found, skipped = _rows(Lines(folder / "epochs.csv"))
    text = pd.DataFrame(found, dtype=TEXT)
    return pd.DataFrame({column.name: _typed(text, column.name, column.type) for column in columns("epochs")}), skipped


def _rows(lines: Lines) -> tuple[list[dict[str, str]], int]:
    """Each line on its own, so that a damaged one takes no other with it."""
    head: list[str] = []
    found: list[dict[str, str]] = []
    skipped = 0
    for line in lines:
        try:
            (cells,) = csv.reader([line.decode()], strict=True)
        except (csv.Error, UnicodeDecodeError, ValueError):
            skipped += 1
            continue
        if not head:
            head = cells
        elif len(cells) == len(head):
            found.append(dict(zip(head, cells, strict=True)))
        else:
            skipped += 1
    return found, skipped + lines.skipped


def steps(folder: Path) -> tuple[pd.DataFrame, int]:
    """Of steps.csv each measured window's `launch_id` and `step_time_s`, and how many rows could not be read.

    Made for a million of them.
    """
    lines = Lines(folder / "steps.csv", without=b'"')  # nothing in it needs quotes
    names = ["launch_id", "measured", "step_time_s"]
    try:
        table = pd.read_csv(
            io.BufferedReader(lines, BLOCK),
            usecols=lambda name: name in names,
            dtype=dict.fromkeys(names, TEXT),
            lineterminator="\n",
            quoting=csv.QUOTE_NONE,
            on_bad_lines="skip",
            encoding_errors="replace",
        )
    except (pd.errors.EmptyDataError, pd.errors.ParserError):
        table = pd.DataFrame()
    if any(name not in table for name in names):
        return pd.DataFrame({name: [] for name in (names[0], names[2])}), lines.count
    times = pd.to_numeric(table["step_time_s"], errors="coerce")
    readable = table["measured"].isin(["true", "false"]) & ((times > 0) & (times < float("inf"))).fillna(False)
    kept = readable & (table["measured"] == "true")
    whole = pd.DataFrame({"launch_id": table["launch_id"][kept], "step_time_s": times[kept].astype(float)})
    return whole, lines.skipped + lines.count - 1 - int(readable.sum())


def _typed(text: pd.DataFrame, name: str, kind: str) -> pd.Series:
    """A column of text in its type; an empty cell, or one of another type, is missing."""
    if name not in text:
        return pd.Series(pd.NA, index=text.index, dtype=DTYPES[kind])
    cells = text[name].replace("", pd.NA)
    if kind == "str":
        return cells.str.replace(CONTROL, "?", regex=True)
    if kind == "bool":
        return cells.map({"true": True, "false": False}).astype("boolean")
    numbers = pd.to_numeric(cells, errors="coerce").astype("Float64")
    if kind == "int":
        numbers = numbers.where((numbers % 1 == 0) & (numbers.abs() < 2**53))
    return numbers.astype(DTYPES[kind])
