"""CSV files whose rows are whole or absent, whatever happens to the disk or to the process. Imports no torch."""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import UsageError


def cell(value: Any) -> str:
    """How a value stands in a CSV file: None is an empty cell, a float keeps all its digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    return " ".join(text.split())


def append(path: Path, names: list[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Append whole rows to a CSV file, or none: what a full disk lets through in part is taken back.

    UsageError: the disk is full, or the file has other columns. A row that an earlier writer left half-written, killed
    in the middle, is cut off. Writers of several processes take turns.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([cell(row.get(name)) for name in names] for row in rows)
    header = ",".join(names) + "\n"
    try:
        with open(path, "a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = whole_rows(file)
            _check_header(path, file, end, header)
            whole = (header if end == 0 else "") + text.getvalue()
            # A path in an error's text need not be UTF-8.
            _write_or_undo(file, end, whole.encode(errors="backslashreplace"))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; make room or choose another --out") from error


def whole_rows(file: io.FileIO) -> int:
    """Where the last whole line ends, in bytes."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _check_header(path: Path, file: io.FileIO, end: int, header: str) -> None:
    file.seek(0)
    start = file.read(len(header.encode()))
    # A file without one whole line is ours only if it is the beginning of a header.
    if start != header.encode() if end else not header.encode().startswith(start):
        raise UsageError(f"{path} has other columns (another version wrote it); choose another --out")


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


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace a file's content in one step: a reader sees the old text or the new one. UsageError: it cannot be."""
    if not path.name:
        raise UsageError(f"cannot write {path}: it is a folder; give the name of a file")
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error.strerror}; make room or choose another --out") from error
