"""The run folder in which a command leaves its rows. Imports no torch."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.column import Column
from bench.errors import UsageError
from bench.machine.nvml import SLOWDOWNS as SLOWDOWNS
from bench.record.cells import head_of, numeric, spelled
from bench.record.columns import columns
from bench.record.csvfile import append, end_of_rows, write_whole

LAUNCH_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
# A launch's files in traces/, by what follows its id: all events, and a table of the operations.
EVENTS, OPERATIONS = ".json.gz", ".csv"


def shortage(row: Mapping[str, Any]) -> str:
    """How a row's trial ran out of memory, to follow its status: " in backward, asked for 2 GiB, held 3 GiB"."""
    phase, requested, held = (row.get(f"oom_{name}") for name in ("phase", "requested_bytes", "held_bytes"))
    return "".join(
        [
            f" in {phase}" if phase else "",
            f", asked for {size(int(requested))}" if requested not in (None, "") else "",
            f", held {size(int(held))}" if held not in (None, "") else "",
        ]
    )


def size(count: int) -> str:
    """Bytes in the largest unit that they fill: 3.25 GiB, 4 MiB, 512 bytes."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.4g} {unit}"
    return f"{count} bytes"


def respelled(text: str, column: Column | None) -> str:
    """A cell as our own files have it; one that cannot be read, or of a column of another version, as it is."""
    found = None if column is None else spelled(text, column)
    return text if found is None else found


@dataclass(frozen=True)
class RunFolder:
    """A folder with the CSV files of FILES, environment.json, logs/ and traces/."""

    path: Path

    def prepare(self) -> None:
        """Make the folder and write a file to it, as a test. Raises UsageError if that fails."""
        probe = self.logs() / f".probe.{os.getpid()}"
        try:
            self.logs().mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"0" * 65536)  # an empty file would fit on a full disk
        except OSError as error:
            raise UsageError(f"cannot write to --out {self.path}: {error.strerror}; choose another folder") from error
        finally:
            with contextlib.suppress(OSError):  # no folder to have left it in
                probe.unlink()

    def logs(self) -> Path:
        """The folder of the trials' logs."""
        return self.path / "logs"

    def traces(self) -> Path:
        """The folder of the traced windows (--trace)."""
        return self.path / "traces"

    def append(self, file: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to one of FILES. Raises KeyError if a row has an unknown column."""
        names = [column.name for column in columns(file)]
        rows = list(rows)
        for row in rows:
            if unknown := set(row) - set(names):
                raise KeyError(f"{file}.csv has no column {sorted(unknown)}")
        append(self.path / f"{file}.csv", names, rows)

    def rows(self, file: str) -> list[dict[str, str]]:
        """The rows of a file as text, without a half-written last one; none if there is no file.

        A row of an older version has an empty cell in each column that it lacks. Cells that another program has saved
        are spelled as ours; one that cannot be read stays as it is. A line that is no row is left out.
        """
        path = self.path / f"{file}.csv"
        if not path.exists():
            return []
        with open(path, "rb", buffering=0) as raw:
            end = end_of_rows(raw)
            raw.seek(0)
            lines = raw.read(end).decode().split("\n")
        known = {column.name: column for column in columns(file)}
        head = head_of(lines[0], next(iter(known)))
        if head is None:  # no run wrote it
            return list(csv.DictReader(lines))
        empty, numbers = dict.fromkeys(known, ""), numeric(columns(file))
        rows = filter(None, (head.row(line.rstrip("\r"), numbers) for line in lines[1:]))
        return [empty | {name: respelled(cell, known.get(name)) for name, cell in row.items()} for row in rows]

    def environments(self) -> dict[str, Any]:
        """What environment.json holds by its keys; none if there is no file. Raises UsageError if it cannot be read."""
        path = self.path / "environment.json"
        try:
            found = json.loads(path.read_bytes()) if path.exists() else {}
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(
                f"cannot read {path} ({error}), to which environments are added; mend it, or choose another --out"
            ) from error
        if not isinstance(found, dict):
            raise UsageError(f"{path} holds no environments by their keys; remove it, or choose another --out")
        return found

    def add_environment(self, key: str, environment: dict[str, Any]) -> None:
        """Add an environment to environment.json under its key, unless it is there."""
        path = self.path / "environment.json"
        with open(self.logs() / ".environment.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # trials may end at once, and each rewrites the file
            known = self.environments()
            if key not in known:
                write_whole(path, json.dumps({**known, key: environment}, indent=1, sort_keys=True) + "\n")
