"""The run folder that a command leaves its rows in, and all that `reports` takes from bench. Imports no torch."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.machine.nvml import SLOWDOWNS as SLOWDOWNS
from bench.record.columns import columns
from bench.record.csvfile import append, whole_rows, write_whole


def shortage(row: Mapping[str, Any]) -> str:
    """What a row of trials.csv says of running out of memory, to follow its status; empty: nothing."""
    phase, asked, held = (row.get(f"oom_{name}") for name in ("phase", "requested_bytes", "held_bytes"))
    return "".join(
        [
            f" in {phase}" if phase else "",
            f", asked for {size(int(asked))}" if asked not in (None, "") else "",
            f", held {size(int(held))}" if held not in (None, "") else "",
        ]
    )


def size(count: int) -> str:
    """Bytes for a reader: 3.25 GiB, 4 MiB, 512 bytes."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.4g} {unit}"
    return f"{count} bytes"


@dataclass(frozen=True)
class RunFolder:
    """Where a command leaves its rows."""

    path: Path

    def prepare(self) -> None:
        """Make the folder and prove that it can be written. UsageError: it cannot."""
        probe = self.logs() / f".probe.{os.getpid()}"
        try:
            self.logs().mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"0" * 65536)
        except OSError as error:
            raise UsageError(f"cannot write to --out {self.path}: {error.strerror}; choose another folder") from error
        finally:
            with contextlib.suppress(OSError):  # no folder to have left it in
                probe.unlink()

    def logs(self) -> Path:
        """The folder of the trials' logs."""
        return self.path / "logs"

    def append(self, file: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to one of FILES. KeyError: a row has a column that does not exist."""
        names = [column.name for column in columns(file)]
        rows = list(rows)
        for row in rows:
            if unknown := set(row) - set(names):
                raise KeyError(f"{file}.csv has no column {sorted(unknown)}")
        append(self.path / f"{file}.csv", names, rows)

    def rows(self, file: str) -> list[dict[str, str]]:
        """The whole rows of a file as text, a half-written last one left out; empty where there is no file.

        A row of an older version has an empty cell in each column that it lacks.
        """
        path = self.path / f"{file}.csv"
        if not path.exists():
            return []
        with open(path, "rb", buffering=0) as raw:
            end = whole_rows(raw)
            raw.seek(0)
            text = raw.read(end).decode()
        reader = csv.DictReader(io.StringIO(text))
        names = [column.name for column in columns(file)]
        if not reader.fieldnames or reader.fieldnames[0] != names[0]:  # no run wrote it
            return list(reader)
        empty = dict.fromkeys(names, "")
        return [empty | row for row in reader]

    def add_environment(self, key: str, environment: dict[str, Any]) -> None:
        """Keep an environment under its key; equal ones are kept once."""
        path = self.path / "environment.json"
        with open(self.logs() / ".environment.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = json.loads(path.read_text()) if path.exists() else {}
            if key not in known:
                write_whole(path, json.dumps({**known, key: environment}, indent=1, sort_keys=True) + "\n")
