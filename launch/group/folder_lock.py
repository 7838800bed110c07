"""One run folder, one runner. The kernel lets the lock go with its holder, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bench.errors import UsageError
from bench.record.run_folder import RunFolder
from launch.group import processes

# A killed runner's processes are ended within this time, and hold the lock until then.
CLEANING_S = 30.0


@dataclass(frozen=True)
class FolderLock:
    """A run folder that this process alone writes to."""

    path: Path
    file: IO[str]

    def check(self) -> None:
        """UsageError: the folder is gone, or another one lies in its place."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self.path), os.fstat(self.file.fileno())):
                return
        raise UsageError(f"{self.path.parent} was deleted or moved while it was written; nothing more is started")


@contextlib.contextmanager
def claim(folder: RunFolder, runner_id: str, machine: int = 0) -> Iterator[FolderLock]:
    """Hold the folder, which exists. Machines that share it hold it side by side. UsageError: another runner does.

    What a former holder has left running, when both it and its guard were killed, is ended.
    """
    path = folder.path / (".runner" if machine == 0 else f".runner.{machine}")
    with _open(path) as file:
        until = time.monotonic() + CLEANING_S
        while not _take(file):
            holder = _read(file)
            if _alive(holder) or time.monotonic() > until:
                raise UsageError(f"{folder.path} is in use by {_name(holder)}; wait for it, or choose another --out")
            time.sleep(0.1)
        if former := _read(file).get("runner_id"):
            processes.end(lambda: processes.having(processes.RUNNER_ID, former), grace_s=0.0)
        file.truncate(0)
        command = " ".join(shlex.join(sys.orig_argv).split())  # one line, also of a script's text behind -c
        me = {"pid": os.getpid(), "host": socket.gethostname(), "runner_id": runner_id, "command": command}
        file.write(json.dumps({**me, "since": time.strftime("%Y-%m-%d %H:%M:%S")}))
        file.flush()
        yield FolderLock(path, file)
        file.truncate(0)


def _open(path: Path) -> IO[str]:
    try:
        return open(path, "a+")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another --out") from error


def _take(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UsageError(f"cannot lock {file.name}: {error.strerror}; choose another file system for --out") from error
    return True


def _read(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        return dict(json.loads(file.read()))
    except (ValueError, TypeError):  # it is just being written
        return {}


def _alive(holder: dict[str, Any]) -> bool:
    """Whether the holder itself runs, not only what watches over its end; of another machine that is not known."""
    return holder.get("host") != socket.gethostname() or processes.runs(holder.get("pid", 0))


def _name(holder: dict[str, Any]) -> str:
    if not holder:
        return "another runner"
    return f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')} ({holder.get('command')})"
