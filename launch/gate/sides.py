"""The processes of both sides for one pair of launches: started side by side or one after the other, ended together."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from bench.failure.causes import Interrupted
from bench.machine import procfs
from bench.machine.repository import without_repository
from bench.record.run_folder import RunFolder
from bench.variables import TURNS
from launch.gate.referee import referee
from launch.interrupts import undisturbed

# How often a side's process is looked at while the referee has nothing to do.
POLL_S = 0.1
# From SIGTERM to SIGKILL: a launch may need a minute to end processes that wait inside a driver.
PATIENCE_S = 100.0
INTERRUPTED = 130


@dataclass(frozen=True)
class Side:
    """`base` or `head`: its commit, the checkout of it, where its rows go, and what runs one launch of it.

    `command`: the number of a pair -> the words of a process that is started in `tree`.
    """

    name: str
    commit: str
    tree: Path
    folder: Path
    command: Callable[[int], Sequence[str]]
    variables: Mapping[str, str]

    def rows(self) -> list[dict[str, str]]:
        """The rows of its launches so far."""
        return RunFolder(self.folder).rows("trials")

    def start(self, number: int, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start this side's launch of the pair. Its tables go to a file, its errors to our stderr.

        Raises UsageError if the folder takes no file.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tables = open(self.folder / "tables.txt", "a")  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"cannot write {self.folder}: {error.strerror}; choose another --out") from error
        with tables:
            return subprocess.Popen(
                self.command(number),
                cwd=self.tree,
                env={**without_repository(), **self.variables, **more},
                stdin=subprocess.DEVNULL,
                stdout=tables,
                start_new_session=True,  # so that Ctrl-C reaches only us, and we pass it on once
                preexec_fn=procfs.end_with_parent,  # should we be killed
            )


def in_turns(sides: Sequence[Side], number: int) -> tuple[list[int], str]:
    """(each side's exit code, why the pair ended before its time, "": it did not) of launches that take turns."""
    processes: list[subprocess.Popen[bytes]] = []
    with referee([side.name for side in sides]) as judge:
        try:
            for side, place in zip(sides, judge.sides, strict=True):
                with undisturbed():  # a signal in between would leave it running
                    processes.append(side.start(number, {TURNS: str(place.address)}))
            while None in [process.poll() for process in processes]:  # a list: any() would not poll them all
                judge.serve(POLL_S)
                for side, process in zip(sides, processes, strict=True):
                    # Also one that ended before it was ready, of which the referee knows nothing.
                    if process.returncode:
                        judge.end(f"the launch of {side.name} ended before its time")
                    elif process.returncode == 0 and any(place.hello for place in judge.sides):
                        judge.end(f"the launch of {side.name} takes no more turns")
        finally:
            end(processes)
    raise_interrupted(processes, judge.broken)
    return [process.returncode for process in processes], judge.broken


def one_by_one(sides: Sequence[Side], number: int) -> list[int]:
    """Each side's exit code, of launches one after the other in this order."""
    codes = []
    for side in sides:
        processes: list[subprocess.Popen[bytes]] = []
        try:
            with undisturbed():
                processes.append(side.start(number, {}))
            processes[0].wait()
        finally:
            end(processes)
        raise_interrupted(processes, "")
        codes.append(processes[0].returncode)
    return codes


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End those that still run, which write the rows of their launches first."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.send_signal(signal.SIGCONT)  # a stopped process (SIGSTOP) handles SIGTERM only once it continues
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)
        process.kill()  # does nothing to one that has ended; a launch's watchdog ends what it leaves
        process.wait()


def raise_interrupted(processes: Sequence[subprocess.Popen[bytes]], broken: str) -> None:
    """Raise Interrupted if a signal that did not reach us interrupted a side; not if the referee ended it."""
    if not broken and any(process.returncode == INTERRUPTED for process in processes):
        raise Interrupted("stopped with the trial that was under way")
