"""Reads a run folder's files, of any version, as typed tables.

A row that cannot be read, because it is no text or has more or fewer cells than the header, is left out and counted;
the others are read. A cell is missing (NA) if it is empty, NaN or infinite. One that is there and is no value of its
column (bench.record.cells) is missing too, but it is named, and the column UNREADABLE of its row has it: such a row
stands apart from all others, and no default is taken in its place. A command that judges refuses it.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UsageError
from bench.record import cells
from bench.record.cells import BOOLS, Unread
from bench.record.columns import columns
from bench.record.run_folder import size
from reports.lines import BLOCK, Lines
from reports.typed import TEXT, UNREADABLE, numbers, typed_table, unread_in

LARGEST_TRIALS = 2**28  # bytes; a hundred thousand rows
ROOM = 2**30  # bytes of memory that the rows of a table may take
CELL = 16  # bytes that a cell takes besides its text
MOST_STEPS = 2**25
MOST_NAMED = 8  # columns with cells that cannot be read: more are counted
CHUNK, STEP_CHUNK = 10_000, 200_000  # rows
STEP_TIME = ("step_time_s",)
NEEDED = ("launch_id", "measured", *STEP_TIME)
ROUND = "round"
"""Column that the table of trials has besides, where rounds.csv says in which round launches were made."""
OUT_FOLDER = "give the --out folder of a run"


@dataclass(frozen=True)
class Lost:
    """What of a file cannot be read: how many rows, and which values in the others."""

    rows: int = 0
    cells: Sequence[Unread] = ()


def trials(folder: Path) -> pd.DataFrame:
    """trials.csv with the columns of this version, for commands that judge: none of its rows may be lost.

    Raises UsageError if there is no such file, if no run wrote it, or if one of its rows or cells cannot be read.
    """
    table, lost = readable_trials(folder)
    _refuse_lost(folder, lost)
    return table


def readable_trials(folder: Path) -> tuple[pd.DataFrame, Lost]:
    """trials.csv without the rows that cannot be read, and what is lost of it, for commands that show.

    Raises UsageError if there is no such file or if none of its rows can be read.
    """
    path = _file_of_trials(folder)
    table, lost = _table(path, "trials")
    _refuse_foreign(path, len(table), lost.rows)
    rounds, unread = _table(folder / "rounds.csv", "rounds")
    if len(rounds):
        of_launch = rounds.dropna().drop_duplicates("launch_id").set_index("launch_id")["round"]
        table[ROUND] = table["launch_id"].map(of_launch, na_action="ignore").astype(TEXT)
    return table, Lost(lost.rows, [*lost.cells, *unread.cells])


def ended_trials(folder: Path) -> tuple[pd.DataFrame, Lost]:
    """As `readable_trials`. Raises UsageError as well if no trial has ended."""
    table, lost = readable_trials(folder)
    if table.empty:
        raise UsageError(f"no trial has ended in {folder} yet; wait for the first, or {OUT_FOLDER} that has rows")
    return table, lost


def trials_of_many(folders: Iterable[Path], names: Collection[str]) -> Iterator[tuple[Path, dict[Any, Any]]]:
    """(run folder, row) for each row of `trials` of these folders, one folder after the other, with these columns.

    The rows of many folders are typed at once, since pandas takes about as long for ten rows as for a thousand. Raises
    UsageError as `trials` does.
    """
    wanted = [column for column in columns("trials") if column.name in names]
    found = ((folder, row) for folder in folders for row in _text_of_trials(folder, set(names)))
    for some in iter(lambda: list(itertools.islice(found, CHUNK)), []):
        table, unread = typed_table([row for _, row in some], wanted, "trials")
        if unread:
            _refuse_lost(some[table[UNREADABLE].notna().tolist().index(True)][0], Lost(0, unread))
        yield from zip((folder for folder, _ in some), table.to_dict("records"), strict=True)


def _text_of_trials(folder: Path, names: set[str]) -> Iterator[dict[str, str]]:
    path = _file_of_trials(folder)
    lines, found = Lines(path), 0
    for row in _rows(lines, names, path, "trials"):
        found += 1
        yield row
    _refuse_foreign(path, found, lines.skipped)
    _refuse_lost(folder, Lost(lines.skipped))


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


def _refuse_lost(folder: Path, lost: Lost, file: str = "trials") -> None:
    """Raise UsageError if a row or a cell cannot be read."""
    if lost.rows:
        path, rows = folder / f"{file}.csv", count(lost.rows, file)
        raise UsageError(f"{path}: {rows} cannot be read; python -m reports show {folder} has the others")
    if lost.cells:
        found = "; ".join(map(str, lost.cells))
        raise UsageError(f"{folder}: no verdict on cells that cannot be read ({found}); put them right in the file")


def epochs(folder: Path) -> tuple[pd.DataFrame, Lost]:
    """epochs.csv likewise; empty if there is no file. Raises UsageError if it is too large."""
    return _table(folder / "epochs.csv", "epochs")


def every_epoch(folder: Path) -> pd.DataFrame:
    """epochs.csv for commands that judge. Raises UsageError if it is too large or a row or cell cannot be read."""
    table, lost = epochs(folder)
    _refuse_lost(folder, lost, "epochs")
    return table


def ceilings(folder: Path) -> list[dict[Any, Any]]:
    """The rows of ceilings.csv that can be read, with None for what is missing; none if there is no file."""
    table, lost = _table(folder / "ceilings.csv", "ceilings")
    say_lost(lost, "ceilings")
    if UNREADABLE in table:  # of a machine that is not known, no ceiling is known
        table = table[table[UNREADABLE].isna()].drop(columns=UNREADABLE)
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()} for row in table.to_dict("records")
    ]


def count(rows: int, file: str) -> str:
    """1 row of trials.csv, 2 rows of trials.csv."""
    return f"{rows:,} row{'' if rows == 1 else 's'} of {file}.csv"


def all_that_can_be(folder: Path, names: Sequence[str] = STEP_TIME) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tables of `readable_trials`, `epochs` and `steps`; prints on stderr what of them cannot be read.

    Raises UsageError as they do.
    """
    found = {"trials": readable_trials(folder), "epochs": epochs(folder), "steps": steps(folder, names)}
    for file, (_, lost) in found.items():
        say_lost(lost, file)
    return found["trials"][0], found["epochs"][0], found["steps"][0]


def in_words(lost: Lost, file: str) -> list[str]:
    """What cannot be read: 2 rows of trials.csv; trials.csv, column tf32: 'JA' in 3 rows."""
    return [*([count(lost.rows, file)] if lost.rows else []), *map(str, lost.cells)]


def say_lost(lost: Lost, file: str) -> None:
    """Print on stderr what cannot be read, if anything."""
    if lost.rows:
        print(f"note: {count(lost.rows, file)} cannot be read; the others are here", file=sys.stderr)
    for each in lost.cells[:MOST_NAMED]:
        print(f"note: {each} cannot be read; that is unknown, not a default", file=sys.stderr)
    if (more := len(lost.cells) - MOST_NAMED) > 0:
        print(f"note: nor can cells of {more} more columns of {file}.csv; they are unknown too", file=sys.stderr)


def _table(path: Path, file: str) -> tuple[pd.DataFrame, Lost]:
    """The rows that can be read, and what cannot. Typed a chunk at a time, since text takes more memory."""
    lines, wanted = Lines(path), columns(file)
    rows = _rows(lines, {column.name for column in wanted}, path, file)
    found = [typed_table(some, wanted, file) for some in iter(lambda: list(itertools.islice(rows, CHUNK)), [])]
    table = pd.concat([table for table, _ in found] or [typed_table([], wanted, file)[0]], ignore_index=True)
    return table, Lost(lines.skipped, cells.joined(unread for _, each in found for unread in each))


def _rows(lines: Lines, known: set[str], path: Path, file: str) -> Iterator[dict[str, str]]:
    """The cells of each row in the known columns; adds the rows that it skips to `lines.skipped`.

    Raises UsageError if the rows take more than ROOM.
    """
    head: cells.Head | None = None
    room, decimals = ROOM, cells.numeric(columns(file)) & known
    for line in lines:
        try:
            text = line.decode()
        except ValueError:
            lines.skipped += 1
            continue
        if head is None and (head := cells.head_of(text, "launch_id")) is not None:
            continue
        row = head.row(text, decimals) if head is not None else None if text else {}
        if not row:
            lines.skipped += row is None
            continue
        room -= len(line) + CELL * len(known)
        if room < 0:
            raise UsageError(f"{path} is too large for one that a run wrote; {OUT_FOLDER}")
        yield {name: cell for name, cell in row.items() if name in known}


def steps(folder: Path, names: Sequence[str] = STEP_TIME) -> tuple[pd.DataFrame, Lost]:
    """Each measured step's `launch_id` and these columns of steps.csv, and what cannot be read.

    Fast enough for millions. Raises UsageError if there are more than MOST_STEPS.
    """
    path = folder / "steps.csv"
    plain = is_plain(path)
    lines = Lines(path, plain=plain)
    tables = [pd.DataFrame({"launch_id": pd.Series(dtype=TEXT), **{name: pd.Series(dtype=float) for name in names}})]
    readable, seen = 0, 0
    unread: list[Unread] = []
    for text in _step_chunks(lines, {*NEEDED, *names}, path, plain):
        times, _ = numbers(text, "step_time_s")
        measured = text["measured"].map(BOOLS, na_action="ignore")
        known = measured.notna() & (times > 0)
        kept = known & (measured == "true")
        found = {"launch_id": text["launch_id"]}
        for name in names:
            found[name], bad = numbers(text[kept], name)
            unread += unread_in("steps", name, bad)
        tables.append(pd.DataFrame(found)[kept])
        seen += len(text) - int(text[list(NEEDED)].isna().all(axis=1).sum())  # a spreadsheet leaves empty rows
        readable += int(known.sum())
        if readable > MOST_STEPS:
            raise UsageError(f"{path} has more than {MOST_STEPS} rows; {OUT_FOLDER}")
    if plain and not seen:  # none of NEEDED's columns
        seen = max(0, lines.count - 1)
    return pd.concat(tables, ignore_index=True), Lost(lines.skipped + seen - readable, cells.joined(unread))


def is_plain(path: Path) -> bool:
    """Whether the columns of a file stand as our own files have them, between commas and without quotes."""
    first = next(iter(Lines(path)), b"")
    return not any(mark in first for mark in (b'"', b";", cells.BYTE_ORDER_MARK.encode()))


def _step_chunks(lines: Lines, wanted: set[str], path: Path, plain: bool) -> Iterator[pd.DataFrame]:
    """These columns as text, STEP_CHUNK rows at a time; none if one of NEEDED is missing."""
    if not plain:
        rows = _rows(lines, wanted, path, "steps")
        for some in iter(lambda: list(itertools.islice(rows, STEP_CHUNK)), []):
            if all(name in some[0] for name in NEEDED):
                yield pd.DataFrame(some, dtype=TEXT).replace("", pd.NA)
        return
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
