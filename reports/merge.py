"""Joins run folders, of several machines or several attempts, into one in which each launch is counted once."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.record.cells import Head, head_of, numeric, shortened, spelled
from bench.record.columns import FILES, columns
from bench.record.csvfile import end_of_rows, header_names
from bench.record.run_folder import EVENTS, LAUNCH_ID, OPERATIONS

LOG = re.compile(r"logs/[\w-][\w.-]*", re.ASCII)
# The cells of a trial's row that are needed to find launches that were made twice.
KEPT = ("launch_id", "trial_key", "repeat", "experiment", "arm", "status", "host")


@dataclass
class Source:
    """One run folder. A command may still write to it: `ends` says up to where it is read, each time."""

    path: Path
    names: dict[str, list[str]] = field(default_factory=dict)
    """File -> its columns, which another version may have written, and another program have saved."""
    ends: dict[str, int] = field(default_factory=dict)
    """File -> bytes of whole rows."""
    launches: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Launch -> file -> hash of its rows there, in their order."""
    trials: list[dict[str, str]] = field(default_factory=list)
    """The cells KEPT of each row of trials.csv."""
    logs: dict[tuple[str, str], None] = field(default_factory=dict)
    """(launch, log) of each row that names a log, of whichever file; once each, in their order."""
    environments: dict[str, Any] = field(default_factory=dict)


def merge(paths: Sequence[Path], out: Path) -> None:
    """Join the run folders in a new folder.

    Raises UsageError if no run wrote an input, if two inputs contradict each other, or if `out` is in use.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already; choose another -o, or remove it")
    sources = [examine(path) for path in paths]
    owners = owned(sources)
    environments = joined(sources)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with scratch_for(out) as folder:
            written = {file: write(folder / f"{file}.csv", file, sources, owners) for file in FILES}
            copy_logs(folder, sources, owners)
            copy_traces(folder, sources)
            if environments:
                text = json.dumps(environments, indent=1, sort_keys=True)
                (folder / "environment.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}; make room or choose another -o") from error
    say_doubled(sources, owners)
    parts = [count(written[f"{kind}s"], kind) for kind in ("trial", "ceiling") if written[f"{kind}s"]]
    print(f"{out}: {' and '.join(parts) or 'no trial'} of {count(len(sources), 'run folder')}")


def count(number: int, what: str) -> str:
    """1 trial, 2 trials."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def examine(path: Path) -> Source:
    """Read a run folder through, once; it may have ceilings alone."""
    if not any((path / file).is_file() for file in ("trials.csv", "ceilings.csv")):
        raise UsageError(f"no {path / 'trials.csv'}; give the --out folder of a run")
    source = Source(path)
    for file in FILES:
        hashes: dict[str, Any] = {}
        for row in rows(source, file):
            launch_id = row["launch_id"]
            if file == "trials":
                if launch_id in hashes:
                    raise UsageError(f"{path / 'trials.csv'} has launch {launch_id} twice; remove one of its rows")
                source.trials.append({name: row.get(name, "") for name in KEPT})
            if log := row.get("log"):
                source.logs[launch_id, log] = None
            if launch_id not in hashes:
                hashes[launch_id] = hashlib.blake2b(digest_size=16)
            # Of the cells with a value: an empty column that another version added makes it no other row.
            filled = [f"{name}={cell}" for name, cell in sorted(row.items()) if cell]
            # \x1f, the unit separator, is in no cell.
            hashes[launch_id].update("\x1f".join([*filled, "\n"]).encode())
        for launch_id, found in hashes.items():
            source.launches.setdefault(launch_id, {})[file] = found.digest()
    source.environments = read_environments(path / "environment.json")
    return source


def rows(source: Source, file: str) -> Iterator[dict[str, str]]:
    """The whole rows of a file, up to the same one each time, spelled as ours if another program has saved them.

    Raises UsageError if no run wrote it, or if a cell cannot be read: copied, it would look like one of ours.
    """
    path = source.path / f"{file}.csv"
    known, wanted = {column.name: column for column in columns(file)}, numeric(columns(file))
    try:
        if file not in source.ends:
            source.ends[file] = whole_bytes(path)
        found = lines(path, source.ends[file])
        head = head_in(path, next(found, None), file)
        source.names[file] = list(head.places)
        for number, line in enumerate(found, start=2):
            if (row := head.row(line.rstrip("\r\n"), wanted)) is None:
                raise UsageError(f"{path}, line {number}, is no row of ours; remove it, or leave the folder out")
            for name in known.keys() & row.keys():
                if (own := spelled(row[name], known[name])) is None:
                    cell = f"column {name}: {shortened(row[name])}"
                    raise UsageError(f"{path}, line {number}, {cell} cannot be read; put it right in the file")
                row[name] = own
            if row and not LAUNCH_ID.fullmatch(row["launch_id"]):
                raise UsageError(f"{path}, line {number}, is no row of ours; remove it, or leave the folder out")
            if row:
                yield row
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}; give the --out folder of a run") from error


def head_in(path: Path, line: str | None, file: str) -> Head:
    """The head of a file with this first line; without one, this version's. Raises UsageError if no run wrote it."""
    names = [column.name for column in columns(file)]
    found = head_of(",".join(names) if line is None else line, names[0])
    if found is None or header_names(",".join(found.places).encode(), names) is None:
        raise UsageError(f"no run wrote {path}: it does not begin with the columns of one; leave the folder out")
    return found


def whole_bytes(path: Path) -> int:
    """Bytes of a file up to the end of its last whole line, 0 if there is no file. Prints what it leaves out."""
    if not path.exists():
        return 0
    with open(path, "rb", buffering=0) as raw:
        end = end_of_rows(raw)
        if (size := raw.seek(0, os.SEEK_END)) != end:
            if not end:
                raise UsageError(f"{path} has not one whole line in {size} bytes; remove it, or leave the folder out")
            print(f"{path}: its last row is half-written and left out", file=sys.stderr)
    return end


def lines(path: Path, end: int) -> Iterator[str]:
    """The lines of the first `end` bytes."""
    if end:
        with open(path, "rb") as file:
            while file.tell() < end:
                if not (line := file.readline()):
                    raise UsageError(f"{path} has become shorter while it was read; merge when nothing writes to it")
                yield line.decode()


def read_environments(path: Path) -> dict[str, Any]:
    """Key -> environment; none if there is no file."""
    try:
        found = json.loads(path.read_bytes()) if path.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {path}: {error}; give the --out folder of a run") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no environments by their keys; give the --out folder of a run")
    return found


def owned(sources: Sequence[Source]) -> dict[str, Source]:
    """Launch -> the first folder that has it. Raises UsageError if another folder has other rows of it."""
    owners: dict[str, Source] = {}
    for source in sources:
        for launch_id, found in source.launches.items():
            first = owners.setdefault(launch_id, source)
            if different := [file for file in FILES if first.launches[launch_id].get(file) != found.get(file)]:
                raise UsageError(
                    f"launch {launch_id} has other rows in {source.path / different[0]}.csv than in {first.path}; "
                    f"one of them is cut off or changed: leave that folder out"
                )
    return owners


def joined(sources: Sequence[Source]) -> dict[str, Any]:
    """All environments. Raises UsageError if two differ under one key."""
    found: dict[str, Any] = {}
    for source in sources:
        for key, environment in source.environments.items():
            if found.setdefault(key, environment) != environment:
                raise UsageError(
                    f"environment {key} of {source.path} differs from another folder's; one of them was changed"
                )
    return found


@contextlib.contextmanager
def scratch_for(out: Path) -> Iterator[Path]:
    """A folder beside `out`, renamed to `out` at the end and removed if that is never reached."""
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        # Only its owner may read mkdtemp's folder; give it a new folder's mode. To read the umask is to set it.
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        yield folder
        os.rename(folder, out)  # onto an empty folder too
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(path: Path, file: str, sources: Sequence[Source], owners: dict[str, Source]) -> int:
    """Write one file of the merged folder, row by row; none if no input has it. How many rows it has."""
    if not any(source.ends[file] for source in sources):
        return 0
    written = 0
    with open(path, "w", newline="", encoding="utf-8") as stream:
        # Of all versions: this one's columns first, then those that it does not know.
        names = dict.fromkeys(name for each in sources for name in each.names[file])
        names = {column.name: None for column in columns(file)} | names
        writer = csv.DictWriter(stream, list(names), restval="", lineterminator="\n")
        writer.writeheader()
        for source in sources:
            for row in rows(source, file):
                if owners[row["launch_id"]] is source:
                    writer.writerow(row)
                    written += 1
    return written


def copy_logs(folder: Path, sources: Sequence[Source], owners: dict[str, Source]) -> None:
    """Copy the logs that the rows name, under the same names."""
    (folder / "logs").mkdir()
    missing = []
    for source in sources:
        for launch_id, log in source.logs:
            if owners[launch_id] is not source:
                continue
            if not LOG.fullmatch(log):  # a cell may name any file of this machine
                raise UsageError(f"{source.path}: launch {launch_id} names a log {log!r} that is not in logs/")
            if (folder / log).exists():
                raise UsageError(f"{source.path}: the log {log} is another launch's too; leave that folder out")
            if (source.path / log).is_symlink() or not (source.path / log).is_file():
                missing.append(source.path / log)
            else:
                shutil.copyfile(source.path / log, folder / log)
    if missing:
        others = f", nor are {len(missing) - 1} more" if len(missing) > 1 else ""
        print(f"{missing[0]}, a launch's log, is not there to be copied{others}", file=sys.stderr)


def copy_traces(folder: Path, sources: Sequence[Source]) -> None:
    """Copy the traces of the launches that have one."""
    for source in sources:
        for name in (f"traces/{launch_id}{kind}" for launch_id in source.launches for kind in (EVENTS, OPERATIONS)):
            if (source.path / name).is_file() and not (source.path / name).is_symlink():
                (folder / "traces").mkdir(exist_ok=True)
                shutil.copyfile(source.path / name, folder / name)


def say_doubled(sources: Sequence[Source], owners: dict[str, Source]) -> None:
    """Print the trials that one host ran well in two of the folders: by mistake, or one repeat too many."""
    first: dict[tuple[str, ...], Source] = {}
    doubled = []
    for source in sources:
        for trial in source.trials:
            if trial["status"] != "ok" or owners[trial["launch_id"]] is not source:
                continue
            identity = (trial["trial_key"], trial["repeat"], trial["host"])
            if first.setdefault(identity, source) is not source:
                what = f"{trial['experiment']} {trial['arm']}, repeat {trial['repeat']}, on {trial['host']}"
                doubled.append(f"{what} ({first[identity].path}, {source.path})")
    if doubled:
        more = ", ..." if len(doubled) > 1 else ""
        what = f"note: one host has two ok rows, both kept, of {count(len(doubled), 'trial')}"
        print(f"{what}: {doubled[0]}{more}", file=sys.stderr)
