"""Reads a run folder's files, of any version, as typed tables.

A row that cannot be read, because it is no text or has more or fewer cells than the header, is left out and counted;
the others are read. A cell is missing (NA) if it is no value of its column, NaN or infinite.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.column import Column
from bench.errors import UsageError
from bench.record.columns import OLDER, columns
from bench.record.run_folder import size
from reports.lines import BLOCK, Lines

CONTROL = r"[\x00-\x1f\x7f-\x9f]"  # a terminal would obey them
LARGEST_TRIALS = 2**28  # bytes; a hundred thousand rows
ROOM = 2**30  # bytes of memory that the rows of a table may take
CELL = 16  # bytes that a cell takes besides its text
MOST_STEPS = 2**25
CHUNK, STEP_CHUNK = 10_000, 200_000  # rows
STEP_TIME = ("step_time_s",)
NEEDED = ("launch_id", "measured", *STEP_TIME)
# Python's strings, so that results are the same whether pyarrow is installed or not.
TEXT = pd.StringDtype("python")
DTYPES: dict[str, Any] = {"str": TEXT, "int": "Int64", "float": "Float64", "bool": "boolean"}
OUT_FOLDER = "give the --out folder of a run"


def trials(folder: Path) -> pd.DataFrame:
    """trials.csv with the columns of this version, for commands that judge: none of its rows may be lost.

    Raises UsageError if there is no such file, if no run wrote it, or if one of its rows cannot be read.
    """
    table, skipped = readable_trials(folder)
    _refuse_lost(folder, skipped)
    return table


def readable_trials(folder: Path) -> tuple[pd.DataFrame, int]:
    """trials.csv without the rows that cannot be read, and the number of those, for commands that show.

    Raises UsageError if there is no such file or if none of its rows can be read.
    """
    path = _file_of_trials(folder)
    table, skipped = _table(path, "trials")
    _refuse_foreign(path, len(table), skipped)
    return table, skipped


def trials_of_many(folders: Iterable[Path], names: Collection[str]) -> Iterator[tuple[Path, dict[Any, Any]]]:
    """(run folder, row) for each row of `trials` of these folders, one folder after the other, with these columns.

    The rows of many folders are typed at once, since pandas takes about as long for ten rows as for a thousand. Raises
    UsageError as `trials` does.
    """
    wanted = [column for column in columns("trials") if column.name in names]
    found = ((folder, row) for folder in folders for row in _text_of_trials(folder, set(names)))
    for some in iter(lambda: list(itertools.islice(found, CHUNK)), []):
        table = _typed_table([row for _, row in some], wanted)
        yield from zip((folder for folder, _ in some), table.to_dict("records"), strict=True)


def _text_of_trials(folder: Path, names: set[str]) -> Iterator[dict[str, str]]:
    path = _file_of_trials(folder)
    lines, found = Lines(path), 0
    for row in _rows(lines, names, path):
        found += 1
        yield row
    _refuse_foreign(path, found, lines.skipped)
    _refuse_lost(folder, lines.skipped)


def _file_of_trials(folder: Path) -> Path:
    """The folder's trials.csv. Raises UsageError if there is none or if it is too large."""
    path = folder / "trials.csv"
    if not path.is_file():
        raise UsageError(f"no {path}; {OUT_FOLDER}")
    if (found := path.stat().st_size) > LARGEST_TRIALS:
        raise UsageError(f"{path} is too large for one that a run wrote, {size(found)}; {OUT_FOLDER}")
    return path


def _refuse_foreign(path: Path, readable: int, skipped: int) -> None:
    """Raise UsageError if the file has rows and none of them can be read."""
    if skipped and not readable:
        raise UsageError(f"cannot read {path}: none of its rows is one that a run wrote; {OUT_FOLDER}")


def _refuse_lost(folder: Path, skipped: int, file: str = "trials") -> None:
    """Raise UsageError if a row cannot be read."""
    if skipped:
        path, rows = folder / f"{file}.csv", count(skipped, file)
        raise UsageError(f"{path}: {rows} cannot be read; python -m reports show {folder} has the others")


def epochs(folder: Path) -> tuple[pd.DataFrame, int]:
    """epochs.csv likewise; empty if there is no file. Raises UsageError if it is too large."""
    return _table(folder / "epochs.csv", "epochs")


def every_epoch(folder: Path) -> pd.DataFrame:
    """epochs.csv for commands that judge. Raises UsageError if it is too large or if one of its rows cannot be read."""
    table, skipped = epochs(folder)
    _refuse_lost(folder, skipped, "epochs")
    return table


def ceilings(folder: Path) -> list[dict[Any, Any]]:
    """The rows of ceilings.csv that can be read, with None for what is missing; none if there is no file."""
    table, skipped = _table(folder / "ceilings.csv", "ceilings")
    say_skipped(skipped, "ceilings")
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()} for row in table.to_dict("records")
    ]


def count(rows: int, file: str) -> str:
    """1 row of trials.csv, 2 rows of trials.csv."""
    return f"{rows:,} row{'' if rows == 1 else 's'} of {file}.csv"


def all_that_can_be(folder: Path, names: Sequence[str] = STEP_TIME) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tables of `readable_trials`, `epochs` and `steps`; prints on stderr how many rows cannot be read.

    Raises UsageError as they do.
    """
    found = {"trials": readable_trials(folder), "epochs": epochs(folder), "steps": steps(folder, names)}
    for file, (_, skipped) in found.items():
        say_skipped(skipped, file)
    return found["trials"][0], found["epochs"][0], found["steps"][0]


def say_skipped(rows: int, file: str) -> None:
    """Print on stderr how many rows could not be read, if any."""
    if rows:
        print(f"note: {count(rows, file)} cannot be read; the others are here", file=sys.stderr)


def _table(path: Path, file: str) -> tuple[pd.DataFrame, int]:
    """The rows that can be read, and how many cannot. Typed a chunk at a time, since text takes more memory."""
    lines, wanted = Lines(path), columns(file)
    rows = _rows(lines, {column.name for column in wanted}, path)
    tables = [_typed_table(some, wanted) for some in iter(lambda: list(itertools.islice(rows, CHUNK)), [])]
    return pd.concat(tables or [_typed_table([], wanted)], ignore_index=True), lines.skipped


def _typed_table(rows: list[dict[str, str]], wanted: Sequence[Column]) -> pd.DataFrame:
    text = pd.DataFrame(rows, dtype=TEXT)
    return pd.DataFrame({column.name: _typed(text, column.name, column.type) for column in wanted})


def _rows(lines: Lines, known: set[str], path: Path) -> Iterator[dict[str, str]]:
    """The cells of each row in the known columns; adds the rows that it skips to `lines.skipped`.

    Each line is parsed on its own: a quote that never ends would swallow all lines after it. Raises UsageError if the
    rows take more than ROOM.
    """
    head: list[str] | None = None
    room = ROOM
    for line in lines:
        try:
            (cells,) = csv.reader([line.decode()], strict=True)
        except (csv.Error, ValueError):
            cells = []
        if head is None and "launch_id" in cells:
            head = cells
            continue
        if head is None or len(cells) != len(head):
            lines.skipped += 1
            continue
        room -= len(line) + CELL * len(known)
        if room < 0:
            raise UsageError(f"{path} is too large for one that a run wrote; {OUT_FOLDER}")
        yield {name: cell for name, cell in zip(head, cells, strict=True) if name in known}


def steps(folder: Path, names: Sequence[str] = STEP_TIME) -> tuple[pd.DataFrame, int]:
    """Each measured step's `launch_id` and these columns of steps.csv, and how many rows cannot be read.

    Fast enough for millions. Raises UsageError if there are more than MOST_STEPS.
    """
    path = folder / "steps.csv"
    lines = Lines(path, plain=True)  # no cell of steps.csv needs quotes
    tables = [pd.DataFrame({"launch_id": pd.Series(dtype=TEXT), **{name: pd.Series(dtype=float) for name in names}})]
    readable = 0
    for text in _step_chunks(lines, {*NEEDED, *names}):
        times = _numbers(text, "step_time_s")
        known = text["measured"].isin(["true", "false"]) & (times > 0)
        kept = known & (text["measured"] == "true")
        found = {"launch_id": text["launch_id"], **{name: _numbers(text, name) for name in names}}
        tables.append(pd.DataFrame(found)[kept])
        readable += int(known.sum())
        if readable > MOST_STEPS:
            raise UsageError(f"{path} has more than {MOST_STEPS} rows; {OUT_FOLDER}")
    return pd.concat(tables, ignore_index=True), lines.skipped + max(0, lines.count - 1) - readable


def _step_chunks(lines: Lines, wanted: set[str]) -> Iterator[pd.DataFrame]:
    """These columns as text, STEP_CHUNK rows at a time; none if one of NEEDED is missing."""
    with contextlib.suppress(pd.errors.EmptyDataError, pd.errors.ParserError):
        for text in pd.read_csv(
            io.BufferedReader(lines, BLOCK),
            usecols=lambda name: name in wanted,
            dtype=dict.fromkeys(wanted, TEXT),
            index_col=False,
            lineterminator="\n",
            quoting=csv.QUOTE_NONE,
            encoding_errors="replace",
            chunksize=STEP_CHUNK,
        ):
            if all(name in text for name in NEEDED):
                yield text


def _numbers(text: pd.DataFrame, name: str) -> pd.Series:
    """A column as floats; what is missing, no number or infinite is NaN."""
    if name not in text:
        return pd.Series(float("nan"), index=text.index)
    numbers = pd.to_numeric(text[name], errors="coerce").astype(float)
    return numbers.where(numbers.abs() < float("inf"))


def _typed(text: pd.DataFrame, name: str, kind: str) -> pd.Series:
    """A column in its type, with this version's names of values; an empty cell, or one of another type, is missing."""
    if name not in text:
        return pd.Series(pd.NA, index=text.index, dtype=DTYPES[kind])
    cells = text[name].replace("", pd.NA)
    if kind == "str":
        return cells.replace(OLDER.get(name, {})).str.replace(CONTROL, "?", regex=True)
    if kind == "bool":
        return cells.map({"true": True, "false": False}).astype("boolean")
    numbers = pd.to_numeric(cells, errors="coerce").astype("Float64")
    if kind == "int":
        numbers = numbers.where((numbers % 1 == 0) & (numbers.abs() < 2**53))
    else:
        numbers = numbers.where(numbers.abs() < float("inf"))
    return numbers.astype(DTYPES[kind])
