"""Trials one after another, each in a process group of its own, of which nothing is left when it ends."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench import experiments, fault, kernel, outcome, progress
from bench.cli import LAUNCH_ID, Options, new_id
from bench.outcome import Cause, Interrupted
from bench.record import FILES, RunFolder, shortage
from bench.rows import first_row
from bench.trial import Trial, UsageError
from launch import autopsy
from launch.command import accelerate_command, inherited

POLL_S = 0.1
# From the request to end, or a rank's end, to SIGKILL: time to write the row, not more.
GRACE_S = 8.0


def never(trial: Trial) -> str | None:
    """No trial is over its limit before it has been tried."""
    return None


def run_all(
    trials: Sequence[Trial],
    options: Options,
    gpus: int,
    axes: Sequence[str],
    over_limit: Callable[[Trial], str | None] = never,
) -> int:
    """Run the trials; 0: all ended well, 1: some did not, 2: a request could not be met, 130: interrupted.

    A trial that is `over_limit`, and why, gets its row and is not started.
    """
    folder = RunFolder(options.out)
    ready(folder)
    done = {(row["trial_key"], row["repeat"]) for row in folder.rows("trials") if row["status"] == "ok"}
    codes = []
    with contextlib.suppress(Interrupted), _handling(_interrupt):
        for number, trial in enumerate(trials, 1):
            title = f"[{number}/{len(trials)}] {trial.experiment} {trial.arm}"
            title += "".join(f" {name}={getattr(trial, name)}" for name in axes)
            if options.resume and (trial.key(), str(trial.repeat)) in done:
                print(f"{title}: has its row already", file=sys.stderr)
                continue
            ready(folder)
            if why := over_limit(trial):
                row = {**_row(trial, new_id()), "status": "over_limit", "error": why, "log": None}
                folder.append("trials", [row])
                print(f"{title}: {summary(row)}", file=sys.stderr)
                continue
            codes.append(Launch(trial, options, gpus, title).run())
            if codes[-1] == 130:
                break
        return max(codes, default=0)
    return 130


def interruptible(work: Callable[[], int | None]) -> int | None:
    """The work's exit code, or 130 where a signal asked for its end."""
    with contextlib.suppress(Interrupted), _handling(_interrupt):
        return work()
    return 130


def ready(folder: RunFolder) -> None:
    """UsageError, now and not after hours of training: the folder cannot take the rows that will come."""
    folder.prepare()
    for file in FILES:
        if (folder.path / f"{file}.csv").exists():
            folder.append(file, [])


@contextlib.contextmanager
def _handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Signals that ask for an end go to the handler in here, but none that nohup or a shell's & has switched off."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(f"stopped by {signal.Signals(number).name}")


@dataclass
class Launch:
    """One trial's process group, from its start to its row."""

    trial: Trial
    options: Options
    gpus: int
    title: str
    root: Path = Path("/")
    """Where the kernel's files lie."""

    def __post_init__(self) -> None:
        self.folder, self.launch_id = RunFolder(self.options.out), new_id()
        self.oom_kills = kernel.oom_kills(self.root)
        self.progress = self.folder.logs() / f"{self.launch_id}.progress"
        self.started_at = _now()

    def run(self) -> int:
        """Start the group, wait for its end, see that it has its row; the exit code. Interrupted: start no other."""
        with progress.Display(self.title) as display:
            process, code = None, None
            try:
                process = self.start()
                if code := self.wait(process, display):
                    self.put(self.guess(code))
            except Interrupted as error:
                self.put(Cause("interrupted", str(error)))
                raise
            finally:
                with _undisturbed():
                    stop(self.launch_id)
                    if process is not None:
                        process.wait()
                    faults = self.folder.logs().glob(f"{self.launch_id}.*.fault")
                    for path in (self.progress, self.progress.with_suffix(".new"), *faults):
                        path.unlink(missing_ok=True)
                    row, cause = self.settle(code)
                    display.line(f"{self.title}: {summary(row)}")
        if cause is not None and cause.usage:
            return 2
        return {"ok": 0, "interrupted": 130}.get(row["status"], 1)

    def put(self, cause: Cause) -> None:
        """Put on record why the group ends, before it is ended: its ranks only learn that they are to stop."""
        outcome.put(self.folder.logs(), self.launch_id, cause)

    def guess(self, code: int | None) -> Cause:
        """Why the group ended if it left no word: for one, there was no room for it."""
        try:
            self.folder.prepare()
        except UsageError as error:
            return Cause("crashed", str(error), usage=True)
        silence = f"the launcher {ending(code)} and no rank left word: killed (see the kernel's log)?"
        return Cause("crashed", silence, silent=True)

    def start(self) -> subprocess.Popen[bytes]:
        """The group's launcher, in a session of its own, which Ctrl-C does not reach."""
        more, command = accelerate_command(self.trial, self.options, self.gpus)
        passed = {LAUNCH_ID: self.launch_id, progress.VARIABLE: str(self.progress.resolve())}
        passed |= {"RESBENCH_COMMAND": os.environ.get("RESBENCH_COMMAND", shlex.join(sys.orig_argv))}
        with open(self.folder.logs() / f"{self.launch_id}.log", "a") as log:  # which end_broken adds to as well
            print(
                "$",
                *(f"{name}={value}" for name, value in more.items()),
                shlex.join(command),
                file=log,
                flush=True,
            )
            return subprocess.Popen(
                command,
                env={**inherited(), **more, **passed},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, process: subprocess.Popen[bytes], display: progress.Display) -> int | None:
        """Show progress until the launcher has ended: its exit code, or None if the group would not end by itself."""
        fatal_since = None
        while (code := process.poll()) is None:
            display.show(progress.read(self.progress))
            time.sleep(POLL_S)
            self.end_broken()
            if fatal_since is None and outcome.get(self.folder.logs(), self.launch_id):
                fatal_since = time.monotonic()
            if fatal_since is not None and time.monotonic() - fatal_since > GRACE_S:
                return None
        return code

    def end_broken(self) -> None:
        """Put on record why a rank broke that has stayed for that, and let it go."""
        if (broken := fault.look(self.folder.logs(), self.launch_id)) is None:
            return
        cause, pid, stack = broken
        self.put(cause)
        with open(self.folder.logs() / f"{self.launch_id}.log", "a") as log:
            log.write(stack)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for path in self.folder.logs().glob(f"{self.launch_id}.*.fault"):
            path.unlink()

    def settle(self, code: int | None) -> tuple[dict[str, Any], Cause | None]:
        """The trial's row, written here if the group did not live to; and why it ended, if not well."""
        cause = outcome.get(self.folder.logs(), self.launch_id)
        written = [row for row in self.folder.rows("trials") if row["launch_id"] == self.launch_id]
        if written:
            return dict(written[0]), cause
        log = f"logs/{self.launch_id}.log"
        cause = autopsy.cause(cause or self.guess(code), code, self.folder.path / log, self.oom_kills, self.root)
        known = self.folder.logs() / f"{self.launch_id}.row.json"
        try:
            row: dict[str, Any] = json.loads(known.read_text())
        except (OSError, ValueError):
            row = _row(self.trial, self.launch_id)
            row |= {"started_at": self.started_at.isoformat(timespec="milliseconds")}
        lasted = _now() - datetime.datetime.fromisoformat(row["started_at"])
        row |= {**cause.columns(), "error": f"{cause.error} ({log})"}
        row |= {"duration_s": round(lasted.total_seconds(), 3)}
        self.folder.append("trials", [row])
        known.unlink(missing_ok=True)
        return row, cause


def _row(trial: Trial, launch_id: str) -> dict[str, Any]:
    return first_row(trial, experiments.load(trial.experiment), launch_id)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C takes effect at the end of this: it must not leave processes behind, nor a trial without its row."""
    came: list[int] = []
    with _handling(lambda number, frame: came.append(number)):
        yield
    for number in came[:1]:
        signal.raise_signal(number)


def stop(launch_id: str) -> None:
    """End every process of a launch: asked first, killed GRACE_S later."""
    deadline = time.monotonic() + GRACE_S
    asked: set[int] = set()
    while members := group(launch_id):
        for process in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                if time.monotonic() > deadline:
                    process.kill()
                elif process.pid not in asked:
                    asked.add(process.pid)
                    process.terminate()
        time.sleep(POLL_S)


def group(launch_id: str) -> list[psutil.Process]:
    """The living processes of a launch, known by their environment: the ranks are in sessions of their own."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(LAUNCH_ID) == launch_id:
                found.append(process)
    return found


def ending(code: int | None) -> str:
    """How a process with this exit code ended."""
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
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
