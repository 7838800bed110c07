"""One trial's process group, from its start to its row, of which no process is left when it ends."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import experiments
from bench.errors import UsageError
from bench.failure import causes, crash_handler
from bench.failure.causes import Cause
from bench.machine import gpus, procfs
from bench.options import Options, new_id
from bench.record import progress
from bench.record.rows import first_row
from bench.record.run_folder import RunFolder, shortage
from bench.trial import Trial
from bench.variables import COMMAND, HOW, LAUNCH_ID
from launch.group import postmortem, processes
from launch.group.accelerate_command import NodeAddress
from launch.group.folder_lock import FolderLock
from launch.group.starter import RunningGroup, Starter, StartRequest, head_line
from launch.group.watchdog import Watchdog
from launch.run_options import RunOptions

# From the request to end, or a rank's end, to SIGKILL: time to write the row, not more.
GRACE_S = 8.0
# A log is cut in the middle when it grows beyond this.
LOG_BYTES = 16 * 2**20
LOG_ENDS_BYTES = 2**20


@dataclass(frozen=True)
class RunContext:
    """What all trials of a runner are started with."""

    runner_id: str
    claim: FolderLock
    guard: Watchdog
    starter: Starter
    scratch: Path
    options: Options
    run_options: RunOptions
    gpus: int
    root: Path = Path("/")
    """Where the kernel's files lie."""


@dataclass
class Launch:
    """One trial under way. `devices`: GPUs of its own, where others run beside it; else it may see all."""

    trial: Trial
    context: RunContext
    title: str
    devices: Sequence[str] = ()
    node: NodeAddress = field(default_factory=NodeAddress)
    launch_id: str = field(default_factory=new_id)

    def __post_init__(self) -> None:
        self.folder = RunFolder(self.context.options.out)
        part = f".machine{self.node.machine}" if self.node.machine else ""  # machines may share the folder
        self.log = self.folder.logs() / f"{self.launch_id}{part}.log"
        self.oom_kills = procfs.oom_kills(self.context.root)
        self.progress = self.folder.logs() / f"{self.launch_id}.progress"
        self.began, self.began_at = time.monotonic(), _now()
        self.told, self.told_at = 0, self.began
        self.fatal_since: float | None = None
        self.started: RunningGroup | None = None
        self.code: int | None = None

    def start(self, more: Mapping[str, str] | None = None) -> None:
        """Start the group, with these environment variables more. UsageError: the folder or the machine has no room."""
        how = {"started_by": self.context.starter.name, "parallel": self.context.run_options.parallel}
        variables = {
            LAUNCH_ID: self.launch_id,
            processes.RUNNER_ID: self.context.runner_id,
            COMMAND: os.environ.get(COMMAND, shlex.join(sys.orig_argv)),
            HOW: json.dumps({**how, "requested_at": time.time()}),
            **(more or {}),
        }
        if self.devices:
            variables |= gpus.only(self.devices)
        context = self.context
        request = StartRequest(
            self.launch_id, self.trial, context.options, context.gpus, variables, self.log, context.scratch, self.node
        )
        try:
            if self.node.machine == 0:
                variables[progress.VARIABLE] = str(self.progress.resolve())
                self.progress.touch()
            self.log.write_text(head_line(request))
            self.started = context.starter.start(request)
        except OSError as error:
            raise UsageError(f"cannot start a trial in {self.folder.path}: {error}; is it still there?") from error

    def state(self) -> dict[str, Any]:
        """What rank 0 last told of its progress."""
        return progress.read(self.progress)

    def over(self) -> bool:
        """Whether the group has ended, or would not end by itself and has to be made to."""
        assert self.started is not None
        self.code = self.started.poll()
        if self.code is not None:
            return True
        self.end_broken()
        self.cut_log()
        if self.fatal_since is None:
            if late := self.late():
                self.dump_stacks()
                self.put(Cause("timeout", late))
                return True
            if causes.recorded(self.folder.logs(), self.launch_id):
                self.fatal_since = time.monotonic()
            return False
        return time.monotonic() - self.fatal_since > GRACE_S

    def late(self) -> str | None:
        """Which time limit has passed."""
        how = self.context.run_options
        if how.timeout is not None and time.monotonic() - self.began > how.timeout:
            return f"not done after the {how.timeout:g} s of --timeout"
        with contextlib.suppress(OSError):
            # When it changes by the file system's clock counts, and for how long it does not by this one.
            if (told := self.progress.stat().st_mtime_ns) != self.told:
                self.told, self.told_at = told, time.monotonic()
        if how.stall_timeout is not None and time.monotonic() - self.told_at > how.stall_timeout:
            return f"no progress for the {how.stall_timeout:g} s of --stall-timeout; the log has the ranks' stacks"
        return None

    def dump_stacks(self) -> None:
        """Have the ranks write down where they are."""
        assert self.started is not None
        for pid in self.started.members():
            if processes.catches(pid, signal.SIGUSR1):
                self.note_in_log(f"\n{processes.name(pid)}, process {pid}, is at\n")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR1)
                time.sleep(0.1)  # one after another, or they write over each other

    def finish(self, undone: Cause | None = None) -> tuple[int, dict[str, Any]]:
        """See that nothing of the group is left and that it has its row: (exit code, the row).

        `undone`: why it ends before its time. UsageError: there is no place for the row, or a process will not die.
        """
        if undone is not None:
            self.put(undone)
        elif self.code:
            self.put(self.guess())
        left: set[int] = set()
        if self.started is not None:
            left = self.started.end(GRACE_S)
            self.code = self.started.poll() if self.code is None else self.code
        self.cut_log()  # of what was printed since the last look, which its end may have followed at once
        try:
            self.context.claim.check()
            row, cause = self.settle()
        finally:
            self.clear()
        if left:  # what it holds of a device, the next trial would be measured beside
            raise UsageError(
                f"{self.title} has ended but for process {min(left)}, which SIGKILL does not end; "
                f"nothing more is started"
            )
        if cause is not None and cause.usage:
            return 2, row
        return {"ok": 0, "interrupted": 130}.get(row["status"], 1), row

    def note_in_log(self, text: str) -> None:
        """Add to the log, where there is still a folder and room; of their lack others tell."""
        with contextlib.suppress(OSError), open(self.log, "a") as log:
            log.write(text)

    def put(self, cause: Cause) -> None:
        """Put on record why the group ends, before it is ended: its ranks only learn that they are to stop."""
        causes.record(self.folder.logs(), self.launch_id, cause)

    def guess(self) -> Cause:
        """Why the group ended if it left no word: for one, there was no room for it."""
        try:
            self.context.claim.check()
            self.folder.prepare()
        except UsageError as error:
            return Cause("crashed", str(error), usage=True)
        if self.started is not None and (trouble := self.started.trouble()):
            return Cause("crashed", trouble)
        silence = f"the launcher {ending(self.code)} and no rank left word: killed (see the kernel's log)?"
        return Cause("crashed", silence, silent=True)

    def cut_log(self) -> None:
        """Keep the log's beginning and end of more than it may hold. Its writers append, so they go on behind that."""
        with contextlib.suppress(OSError):
            size = self.log.stat().st_size
            if size <= LOG_BYTES:
                return
            with open(self.log, "r+b") as log:
                log.seek(size - LOG_ENDS_BYTES)
                end = log.read(LOG_ENDS_BYTES)
                log.truncate(LOG_ENDS_BYTES)
            with open(self.log, "ab") as log:
                log.write(f"\n... {size - 2 * LOG_ENDS_BYTES} bytes were printed here ...\n".encode() + end)

    def end_broken(self) -> None:
        """Put on record why a rank broke that has stayed for that, and let it go."""
        if (broken := crash_handler.crashed_rank(self.folder.logs(), self.launch_id)) is None:
            return
        cause, pid, stack = broken
        self.put(cause)
        self.note_in_log(stack)
        if self.started is not None and pid in self.started.members():
            os.kill(pid, signal.SIGKILL)
        for path in self.folder.logs().glob(f"{self.launch_id}.*.fault"):
            path.unlink()

    def settle(self) -> tuple[dict[str, Any], Cause | None]:
        """The trial's row, written here if the group did not live to; and why it ended, if not well."""
        cause = causes.recorded(self.folder.logs(), self.launch_id)
        written = [row for row in self.folder.rows("trials") if row["launch_id"] == self.launch_id]
        if written:
            return dict(written[0]), cause
        cause = postmortem.cause(cause or self.guess(), self.code, self.log, self.oom_kills, self.context.root)
        known = self.folder.logs() / f"{self.launch_id}.row.json"
        try:
            row: dict[str, Any] = json.loads(known.read_text())
        except (OSError, ValueError):
            row = self.bare_row()
            row |= {"started_at": self.began_at.isoformat(timespec="milliseconds")}
        lasted = _now() - datetime.datetime.fromisoformat(row["started_at"])
        row |= {**cause.columns(), "error": f"{cause.error} (logs/{self.log.name})"}
        row |= {"duration_s": round(lasted.total_seconds(), 3)}
        self.folder.append("trials", [row])
        return row, cause

    def bare_row(self) -> dict[str, Any]:
        """What is known of the trial before it starts."""
        how = {"started_by": self.context.starter.name, "parallel": self.context.run_options.parallel}
        return {**first_row(self.trial, experiments.load(self.trial.experiment), self.launch_id), **how}

    def skip(self, why: str) -> dict[str, Any]:
        """The row of a trial that is not started, since it would be over its limit."""
        row = {**self.bare_row(), "status": "over_limit", "error": why, "log": None, "started_by": None}
        self.folder.append("trials", [row])
        return row

    def clear(self) -> None:
        """Remove what served while it ran."""
        if self.node.machine == 0:
            clear(self.folder, f"{self.launch_id}.")
        for path in self.context.scratch.glob(f"{self.launch_id}.*"):
            path.unlink(missing_ok=True)


def clear(folder: RunFolder, prefix: str = "") -> None:
    """Remove the files that serve while launches run, of which none does."""
    for pattern in ("progress", "new", "*.fault", "row.json", "cause.json"):
        for path in folder.logs().glob(f"{prefix}{pattern}" if prefix else f"*.{pattern}"):
            path.unlink(missing_ok=True)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def ending(code: int | None) -> str:
    """How a process with this exit code ended."""
    if code is not None and code < 0:
        return f"was killed by {processes.signal_name(-code)}"
    return "would not end" if code is None else f"ended with exit code {code}"


def summary(row: dict[str, Any]) -> str:
    """A trial's row in a line."""
    if row["status"] != "ok":
        return f"{row['status']}{shortage(row)}: {row['error']}"
    parts = ["ok"]
    if row.get("images_per_s"):
        parts.append(progress.rate(float(row["images_per_s"])))
    if row.get("eval_accuracy"):
        parts.append(f"evaluation accuracy {float(row['eval_accuracy']):.3f}")
    return ", ".join(parts)
