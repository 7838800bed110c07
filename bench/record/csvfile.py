"""CSV files. Appends are atomic: after a crash, or on a full disk, a file holds whole rows only. Imports no torch.

A file that another version wrote is added to as well. It keeps its columns in their order, those that this version does
not know included; the columns that it lacks are added behind them, once, with empty cells in the rows that are there.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.record.cells import head_of

LONGEST_HEADER = 2**18  # bytes
# What each version has had in trials.csv, steps.csv, per_class.csv, epochs.csv, ranks.csv, ceilings.csv and rounds.csv:
# a file without it is not ours.
KEYS = ("trial_key", "window", "label", "epoch", "rank", "work", "round")
NAME = re.compile(r"[a-z][a-z0-9_]*")
BLOCK = 2**20  # bytes


def cell(value: Any) -> str:
    """A value as the text of a cell: None is empty, a float keeps all its digits, text stays on one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    return " ".join(text.split())


def append(path: Path, names: list[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Append whole rows to a CSV file, or none: what a full disk lets through in part is taken back.

    A row that an earlier writer left half-written, killed in the middle, is cut off. Writers of several processes take
    turns. Raises UsageError if the disk is full or if no run wrote the file.
    """
    rows = list(rows)
    try:
        while not _append(path, names, rows):
            pass
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; make room or choose another --out") from error


def _append(path: Path, names: list[str], rows: list[Mapping[str, Any]]) -> bool:
    """Append to the file that has this name now; False: it is another file by now, or has become one here."""
    with open(path, "a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # A writer that added columns put a new file in the place of the one that we have waited for.
        if not _is_at(file, path):
            return False
        end = whole_rows(file)
        own = _header(names)
        file.seek(0)
        start = file.read(len(own))
        # A file without one whole line is ours only if it is the beginning of a header.
        there = names if start == own or (not end and own.startswith(start)) else _names(file, end, names)
        if there is None:
            raise UsageError(f"{why_not_ours(file, path, end, names)}; choose another --out")
        if missing := [name for name in names if name not in there]:
            _widen(path, file, end, there, missing)
            return False
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([cell(row.get(name)) for name in there] for row in rows)
        _write_or_undo(file, end, (b"" if end else own) + encoded(text.getvalue()))
        return True


def _header(names: list[str]) -> bytes:
    return (",".join(names) + "\n").encode()


def _is_at(file: io.FileIO, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False


def _names(file: io.FileIO, end: int, ours: Sequence[str]) -> list[str] | None:
    """The columns of a file with whole rows up to `end`; None: it is none of ours."""
    file.seek(0)
    line, newline, _ = file.read(min(end, LONGEST_HEADER)).partition(b"\n")
    return header_names(line, ours) if newline else None


def header_names(line: bytes, ours: Sequence[str]) -> list[str] | None:
    """The columns that a header of ours names, whichever version wrote it; None: no run wrote this line.

    `ours`: this version's. They share the first column, and the first one of KEYS that is among ours.
    """
    names = line.decode(errors="replace").split(",")
    key = next((key for key in KEYS if key in ours), ours[0])
    is_ours = names[0] == ours[0] and key in names and len(set(names)) == len(names)
    return names if is_ours and all(map(NAME.fullmatch, names)) else None


def why_not_ours(file: io.FileIO, path: Path, end: int, ours: Sequence[str]) -> str:
    """Why no rows of ours may follow in a file whose first line is none of ours.

    What a spreadsheet has saved is not converted in place: its cells may not be what they were, and the file is the
    user's by now. `python -m reports merge` makes a folder of it that takes rows, or says which cells it cannot read.
    """
    file.seek(0)
    line = file.read(LONGEST_HEADER).partition(b"\n")[0].decode(errors="replace")
    head = head_of(line, ours[0])
    if head is not None and header_names(",".join(head.places).encode(), ours) is not None:
        convert = f"python -m reports merge {path.parent} -o NEW makes a folder of it that takes them"
        return f"another program has saved {path} in a form that rows of ours do not fit: {convert}"
    return f"no run wrote {path}: it does not begin with the columns of one"


def _widen(path: Path, file: io.FileIO, end: int, names: list[str], missing: list[str]) -> None:
    """Put a file with the missing columns too, empty in all its rows, in the place of this one, which is locked.

    It is written beside it and renamed: after a crash there is the old file or the new one, whole. Rows are not parsed:
    a damaged one stays as damaged as it was, and a large file takes little memory.
    """
    target = path.resolve()  # of a link, what it leads to
    scratch = target.with_name(f".{target.name}.widened")  # one name is enough for whoever holds the lock
    empty = b"," * len(missing) + b"\n"
    file.seek(len(_header(names)))
    try:
        with open(scratch, "wb") as wider:
            wider.write(_header([*names, *missing]))
            for block in iter(lambda: file.read(min(BLOCK, end - file.tell())), b""):
                wider.write(block.replace(b"\n", empty))
            wider.flush()
            os.fsync(wider.fileno())  # before the name leads to it, so that a power cut leaves no empty file
        shutil.copymode(target, scratch)
        os.replace(scratch, target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def whole_rows(file: io.FileIO) -> int:
    """The offset behind the last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def end_of_rows(file: io.FileIO) -> int:
    """The offset behind the last row to be read: behind the last whole line.

    Spreadsheets may leave out the end of the last line. They write CRLF, as no run does, so that it is known there.
    """
    file.seek(0)
    if file.read(LONGEST_HEADER).partition(b"\n")[0].endswith(b"\r"):
        return file.seek(0, os.SEEK_END)
    return whole_rows(file)


def _write_or_undo(file: io.FileIO, end: int, data: bytes) -> None:
    if file.seek(0, os.SEEK_END) != end:
        file.truncate(end)
    done = 0
    try:
        while done < len(data):
            done += file.write(data[done:])
    except OSError:
        file.truncate(end)
        raise


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a new CSV file, or replace it, with the columns of the first row. Raises UsageError if it cannot be."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([list(rows[0]), *([cell(value) for value in row.values()] for row in rows)])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.getvalue())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another --out") from error


def encoded(text: str) -> bytes:
    """The text in UTF-8; what has none is escaped: the name of a file need not be UTF-8, and errors name files."""
    return text.encode("utf-8", errors="backslashreplace")


def append_text(path: Path, text: str) -> None:
    """Append to a text file, in a paragraph of its own, all or nothing. Raises UsageError if it fails."""
    try:
        with open(path, "a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            _write_or_undo(file, end, (b"\n" if end else b"") + encoded(text))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; make room or choose another file") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace a file's content in one step: a reader sees the old text or the new. Raises UsageError if it fails."""
    if not path.name:
        raise UsageError(f"cannot write {path}: it is a folder; give the name of a file")
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(encoded(content) if isinstance(content, str) else content)
        os.replace(scratch, path)
    except BaseException as error:  # Ctrl-C too
        with suppress(OSError):  # on a read-only file system, also where there is nothing to remove
            scratch.unlink()
        if not isinstance(error, OSError):
            raise
        raise UsageError(f"cannot write {path}: {error.strerror}; make room or choose another --out") from error
