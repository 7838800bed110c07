"""Only one runner at a time writes to a run folder. The lock is the kernel's (flock): it ends with its process."""

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
from bench.variables import RUNNER_ID
from launch.group import processes

# After a runner is killed, its watchdog needs up to this time to end its processes, and holds the lock meanwhile.
CLEANING_S = 30.0


@dataclass(frozen=True)
class FolderLock:
    """A run folder that this process alone writes to."""

    path: Path
    file: IO[str]

    def check(self) -> None:
        """Raises UsageError if the folder was deleted, or replaced by another."""
        # A folder that was deleted and made again has the same path, and a lock file that is not ours.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self.path), os.fstat(self.file.fileno())):
                return
        raise UsageError(f"{self.path.parent} was deleted or moved while it was written; nothing more is started")


@contextlib.contextmanager
def claim(folder: RunFolder, runner_id: str, machine: int = 0) -> Iterator[FolderLock]:
    """Lock the folder, which exists. Raises UsageError if another runner has locked it.

    Several machines may share the folder; each has a lock file of its own. If a former runner and its watchdog were
    both killed, the processes that they left are ended first.
    """
    path = folder.path / (".runner" if machine == 0 else f".runner.{machine}")
    with _open(path) as file:
        deadline = time.monotonic() + CLEANING_S
        while not _take(file):
            holder = _read(file)
            if _alive(holder) or time.monotonic() > deadline:
                raise UsageError(f"{folder.path} is in use by {_name(holder)}; wait for it, or choose another --out")
            time.sleep(0.1)
        # A runner that ends in order empties the file; one that was killed leaves its id.
        if former := _read(file).get("runner_id"):
            processes.end_all(lambda: processes.with_variable(RUNNER_ID, former), grace_s=0.0)
        file.truncate(0)
        command = " ".join(shlex.join(sys.orig_argv).split())  # one line, even of a multi-line python -c
        me = {"pid": os.getpid(), "host": socket.gethostname(), "runner_id": runner_id, "command": command}
        file.write(json.dumps({**me, "since": time.strftime("%Y-%m-%d %H:%M:%S")}))
        file.flush()
        yield FolderLock(path, file)
        file.truncate(0)


def _open(path: Path) -> IO[str]:
    try:
        return open(path, "a+", encoding="utf-8")
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
    except (ValueError, TypeError):  # its holder is just writing it
        return {}


def _alive(holder: dict[str, Any]) -> bool:
    """Whether the holder itself runs, not only its watchdog. On another machine, it is taken to."""
    return holder.get("host") != socket.gethostname() or processes.is_running(holder.get("pid", 0))


def _name(holder: dict[str, Any]) -> str:
    if not holder:
        return "another runner"
    return f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')} ({holder.get('command')})"
