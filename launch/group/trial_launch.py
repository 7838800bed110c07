"""One trial from its start to its row: starts its process group, watches it, ends it, and leaves no process of it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.errors import UsageError
from bench.failure import causes, crash_handler, last_phase
from bench.failure.causes import Cause
from bench.machine import cgroups, gpus
from bench.record import progress
from bench.record.rows import BEGAN, time_stamp
from bench.record.run_folder import RunFolder
from bench.trial import Trial
from bench.variables import COMMAND, LAUNCH_DETAILS, LAUNCH_ID, RUNNER_ID, new_id
from launch.group import missing_row, postmortem, processes
from launch.group.accelerate_command import NodeAddress
from launch.group.run_context import RunContext, remove_working_files
from launch.group.starter import RunningGroup, StartRequest, head_line

# From SIGTERM, or from the first rank's end, to SIGKILL: the other ranks may still write the row, and no more.
GRACE_S = 8.0
# A log that grows beyond LOG_BYTES, as when a warning repeats each step, keeps its first and last LOG_ENDS_BYTES.
LOG_BYTES = 16 * 2**20
LOG_ENDS_BYTES = 2**20


@dataclass
class Launch:
    """One trial under way. `devices`: the GPUs that it may use; empty: all, as it runs alone."""

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
        self.progress_file = self.folder.logs() / f"{self.launch_id}.progress"
        self.oom_kills_before = cgroups.oom_kills(self.context.root)
        self.created, self.started_at = time.monotonic(), time_stamp()
        self.progress_mtime_ns, self.progress_changed = 0, self.created
        self.cause_seen: float | None = None
        self.group: RunningGroup | None = None
        self.exit_code: int | None = None

    def start(self, more_variables: Mapping[str, str] | None = None) -> None:
        """Start the group. Raises UsageError if the folder or the machine has no room."""
        context = self.context
        # `requested_s`: the row's startup_s is from here until the trial's group has formed.
        how = {"started_by": context.starter.name, "parallel": context.run_options.parallel}
        variables = {
            LAUNCH_ID: self.launch_id,
            RUNNER_ID: context.runner_id,
            COMMAND: os.environ.get(COMMAND, shlex.join(sys.orig_argv)),
            LAUNCH_DETAILS: json.dumps({**how, "requested_s": time.monotonic()}),
            **(more_variables or {}),
        }
        if self.devices:
            variables |= gpus.only(self.devices)
        if self.node.machine == 0:  # rank 0, which reports progress, is here
            variables[progress.VARIABLE] = str(self.progress_file.resolve())
        request = StartRequest(
            self.launch_id, self.trial, context.options, context.gpus, variables, self.log, context.scratch, self.node
        )
        try:
            if self.node.machine == 0:
                self.progress_file.touch()
            self.log.write_text(head_line(request), encoding="utf-8", errors="backslashreplace")
            self.group = context.starter.start(request)
        except OSError as error:
            raise UsageError(f"cannot start a trial in {self.folder.path}: {error}; is it still there?") from error

    def progress(self) -> dict[str, Any]:
        """The state that rank 0 last reported (see bench.record.progress); empty before the first."""
        return progress.read(self.progress_file)

    def watch(self) -> bool:
        """Look after the group once; to be called several times a second. Returns whether to finish the launch.

        That is so if the group has ended, is over a time limit, or is still there GRACE_S after a rank has ended.
        """
        assert self.group is not None
        self.exit_code = self.group.poll()
        if self.exit_code is not None:
            return True
        self.end_crashed_rank()
        self.shorten_log()
        if self.cause_seen is None:
            if reason := self.over_time():
                self.dump_stacks()
                self.record_cause(Cause("timeout", reason))
                return True
            # Recorded by the rank that ended, or by fork_server.record_killed_ranks. The others fail in their next
            # collective, or hang in it.
            if causes.recorded(self.folder.logs(), self.launch_id):
                self.cause_seen = time.monotonic()
            return False
        return time.monotonic() - self.cause_seen > GRACE_S

    def over_time(self) -> str | None:
        """Which time limit has passed; None: none."""
        limits = self.context.run_options
        if limits.timeout is not None and time.monotonic() - self.created > limits.timeout:
            return f"not done after the {limits.timeout:g} s of --timeout"
        with contextlib.suppress(OSError):
            # The file's time may be of another clock (NFS), so it only tells that something changed, not when.
            if (mtime_ns := self.progress_file.stat().st_mtime_ns) != self.progress_mtime_ns:
                self.progress_mtime_ns, self.progress_changed = mtime_ns, time.monotonic()
        if limits.stall_timeout is not None and time.monotonic() - self.progress_changed > limits.stall_timeout:
            return f"no progress for the {limits.stall_timeout:g} s of --stall-timeout; the log has the ranks' stacks"
        return None

    def dump_stacks(self) -> None:
        """Have each rank write its Python stack into the log (faulthandler's SIGUSR1)."""
        assert self.group is not None
        for pid in self.group.members():
            if processes.catches_signal(pid, signal.SIGUSR1):
                self.append_to_log(f"\n{processes.name(pid)}, process {pid}, is at\n")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR1)
                time.sleep(0.1)  # one after another: they write into the same file

    def end_crashed_rank(self) -> None:
        """End a rank that crashed under a memory limit and waits for that (see bench.failure.crash_handler)."""
        if (crash := crash_handler.crashed_rank(self.folder.logs(), self.launch_id)) is None:
            return
        cause, pid, stack = crash
        self.record_cause(cause)
        self.append_to_log(stack)
        if self.group is not None and pid in self.group.members():
            os.kill(pid, signal.SIGKILL)
        for path in self.folder.logs().glob(f"{self.launch_id}.*.fault"):
            path.unlink()

    def record_cause(self, cause: Cause) -> None:
        """Record why the group ends, unless a cause is on record already. Before ending it: its ranks do not know."""
        causes.record(self.folder.logs(), self.launch_id, cause)

    def unrecorded_cause(self) -> Cause:
        """Why the group ended if none of its processes recorded it: perhaps there was no room to."""
        try:
            self.context.lock.check()
            self.folder.prepare()
        except UsageError as error:
            return Cause("crashed", str(error), usage=True)
        if self.group is not None and (failure := self.group.start_failure()):
            return Cause("crashed", failure)
        alone = self.trial.processes == 1
        phase = last_phase.of(self.launch_id, 0) if alone else None
        if alone and self.exit_code is not None and self.exit_code < 0 and self.context.starter.name == "warm":
            # After a warm start the launcher of a single process is the trial itself.
            return causes.killed(0, processes.signal_name(-self.exit_code), phase)
        what = f"the launcher {describe_exit(self.exit_code)}, and no rank recorded why; see dmesg and the log"
        return Cause("crashed", what, silent=True, lost_rank=0 if alone else None, oom_phase=phase)

    def finish(self, cause: Cause | None = None) -> tuple[int, dict[str, Any]]:
        """End what is left of the group and see that the trial has its row: (the command's exit code, the row).

        `cause`: why it is ended before its time. Raises UsageError if the row cannot be written, or a process survives
        SIGKILL.
        """
        if cause is not None:
            self.record_cause(cause)
        elif self.exit_code:
            self.record_cause(self.unrecorded_cause())
        survivors: set[int] = set()
        if self.group is not None:
            survivors = self.group.end(GRACE_S)
            self.exit_code = self.group.poll() if self.exit_code is None else self.exit_code
        self.shorten_log()  # again: much may have been printed since the last poll
        try:
            self.context.lock.check()
            row, cause = self.ensure_row()
        finally:
            self.remove_working_files()
        if survivors:  # they may hold GPU memory, which would distort the next trial
            raise UsageError(
                f"{self.title} has ended, but SIGKILL does not end its process {min(survivors)}; nothing more is "
                f"started"
            )
        if cause is not None and cause.usage:  # the trial was refused by its own process, as for missing data
            return 2, row
        return {"ok": 0, "interrupted": 130}.get(row["status"], 1), row

    def ensure_row(self) -> tuple[dict[str, Any], Cause | None]:
        """The trial's row, written here if rank 0 did not; and why the trial ended, None if it ended well."""
        cause = causes.recorded(self.folder.logs(), self.launch_id)
        if row := missing_row.written(self.folder, self.launch_id):
            return row, cause
        cause = postmortem.refine(
            cause or self.unrecorded_cause(), self.exit_code, self.log, self.oom_kills_before, self.context.root
        )
        before = {**self.first_row(), "started_at": self.started_at, BEGAN: self.created}
        return missing_row.write_failed(self.folder, before, cause, self.log), cause

    def first_row(self) -> dict[str, Any]:
        """What is known of the trial before it starts."""
        context = self.context
        return missing_row.before_start(self.trial, self.launch_id, context.starter.name, context.run_options.parallel)

    def append_to_log(self, text: str) -> None:
        """Best effort: a missing folder or a full disk is reported where rows are written."""
        with contextlib.suppress(OSError), open(self.log, "a", encoding="utf-8") as log:
            log.write(text)

    def shorten_log(self) -> None:
        """Keep the beginning and the end of a log over LOG_BYTES. Its writers append, so they go on behind that."""
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

    def remove_working_files(self) -> None:
        """Remove the files that were needed while it ran."""
        last_phase.remove(launch_id=self.launch_id)
        if self.node.machine == 0:
            remove_working_files(self.folder, f"{self.launch_id}.")
        for path in self.context.scratch.glob(f"{self.launch_id}.*"):
            path.unlink(missing_ok=True)


def describe_exit(exit_code: int | None) -> str:
    """How a process with this exit code ended, as a verb."""
    if exit_code is not None and exit_code < 0:
        return f"was killed by {processes.signal_name(-exit_code)}"
    return "would not end" if exit_code is None else f"ended with exit code {exit_code}"
