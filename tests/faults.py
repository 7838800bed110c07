"""The faults of the campaign: what hits a command that is under way, and what its exit code may be then."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from launching import Command, is_launcher, named

FLOOD_BYTES = 200 * 2**20

# A fault of a gate has this before its name.
GATE = "gate: "
SIDES = ("base", "head")

CODES = {
    "kill -9 of the runner": {-signal.SIGKILL},
    "kill -9 of the runner's group": {-signal.SIGKILL},
    "SIGINT": {130},
    "SIGTERM": {130},
    "SIGHUP": {130},
    "full disk": {2},
    "folder deleted": {2},
    "gate: kill -9 of a side's runner": {2},
    "gate: kill -9 of the gate": {-signal.SIGKILL},
    "gate: SIGINT": {130},
    "gate: SIGTERM": {130},
    "gate: full disk": {2},
    "gate: a side's folder deleted": {2},
}
# After these a trial may have no row: then --resume, or the next pair, runs it.
ROWLESS = {"kill -9 of the runner", "kill -9 of the runner's group", "full disk", "folder deleted"}
ROWLESS |= {"gate: kill -9 of a side's runner", "gate: full disk", "gate: a side's folder deleted"}


@dataclass
class Target:
    """A command under way, and where it writes."""

    command: Command
    out: Path
    rng: random.Random
    scratch: Path

    def has_begun(self) -> bool:
        """Whether it is at work. Before that it may be killed by any signal, as any command may."""
        if any(self.scratch.glob("resbench-gate-*")):  # the worktrees of a gate
            return True
        with contextlib.suppress(OSError):  # a runner has the folder to itself
            return f'"pid": {self.command.process.pid},' in (self.out / ".runner").read_text()
        return False

    def pick(self, wanted: Callable[[psutil.Process], bool]) -> psutil.Process | None:
        """One of its processes."""
        found = [process for process in self.command.left() if wanted(process)]
        return self.rng.choice(found) if found else None


def is_rank(process: psutil.Process) -> bool:
    return named(process).startswith("rank ")


def is_warm(process: psutil.Process) -> bool:
    return named(process) == "resbench warm"


def is_guard(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "launch.group.watchdog" in process.cmdline()
    return False


def is_runner(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()[1:4] == ["-m", "launch", "run"]
    return False


def sends(wanted: Callable[[psutil.Process], bool], number: int) -> Callable[[Target], bool]:
    """A fault that sends a signal to such a process; it tells whether there was one."""

    def inject(target: Target) -> bool:
        process = target.pick(wanted)
        if process is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            return True
        return False

    return inject


def to_runner(number: int) -> Callable[[Target], bool]:
    def inject(target: Target) -> bool:
        target.command.process.send_signal(number)
        return True

    return inject


def kill_group(target: Target) -> bool:
    os.killpg(target.command.process.pid, signal.SIGKILL)
    return True


def fill_disk(target: Target) -> bool:
    with open(target.out.parent / "filler", "ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"0" * 2**20):
            pass
    return True


def delete_folder(target: Target) -> bool:
    if not target.out.exists():
        return False
    shutil.rmtree(target.out, ignore_errors=True)
    return True


def delete_side(target: Target) -> bool:
    folder = target.out / target.rng.choice(SIDES)
    if not folder.exists():
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


def starve(target: Target) -> bool:
    """One rank of two may have no more memory than it has, but for a little."""
    process = target.pick(lambda process: named(process) == "rank 1")
    if process is None:
        return False
    with contextlib.suppress(psutil.Error, OSError):
        most = process.memory_info().data + 2**20
        process.rlimit(resource.RLIMIT_DATA, (most, most))
        return True
    return False


def flood(target: Target) -> bool:
    """What a rank prints, printed for it."""
    process = target.pick(is_rank)
    if process is None:
        return False
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/fd/1", "ab", buffering=0) as log:
        for _ in range(FLOOD_BYTES // 2**20):
            log.write(b"x" * (2**20 - 1) + b"\n")
        return True
    return False


KINDS: dict[str, Callable[[Target], bool]] = {
    "kill -9 of a rank": sends(is_rank, signal.SIGKILL),
    "kill -9 of the launcher": sends(is_launcher, signal.SIGKILL),
    "kill -9 of the warm process": sends(is_warm, signal.SIGKILL),
    "kill -9 of the guard": sends(is_guard, signal.SIGKILL),
    "kill -9 of the runner": to_runner(signal.SIGKILL),
    "kill -9 of the runner's group": kill_group,
    "a rank stopped": sends(is_rank, signal.SIGSTOP),
    "the launcher stopped": sends(is_launcher, signal.SIGSTOP),
    "SIGINT": to_runner(signal.SIGINT),
    "SIGTERM": to_runner(signal.SIGTERM),
    "SIGHUP": to_runner(signal.SIGHUP),
    "full disk": fill_disk,
    "folder deleted": delete_folder,
    "a rank out of memory": starve,
    "a rank that prints 200 MiB": flood,
    "gate: kill -9 of a rank": sends(is_rank, signal.SIGKILL),
    "gate: kill -9 of a launcher": sends(is_launcher, signal.SIGKILL),
    "gate: kill -9 of a warm process": sends(is_warm, signal.SIGKILL),
    "gate: kill -9 of a side's runner": sends(is_runner, signal.SIGKILL),
    "gate: kill -9 of the gate": to_runner(signal.SIGKILL),
    "gate: a rank stopped": sends(is_rank, signal.SIGSTOP),
    "gate: SIGINT": to_runner(signal.SIGINT),
    "gate: SIGTERM": to_runner(signal.SIGTERM),
    "gate: full disk": fill_disk,
    "gate: a side's folder deleted": delete_side,
    "gate: a rank out of memory": starve,
}
# Each of these takes the time limit and the grace that follow it; the short campaign does without.
SLOW = {"a rank stopped", "the launcher stopped", "gate: a rank stopped"}
