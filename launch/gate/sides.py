"""The processes of both sides for one pair of launches: started side by side or one after the other, ended together."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.errors import INTERRUPTED, UsageError
from bench.failure.causes import Interrupted
from bench.machine import procfs
from bench.machine.repository import without_repository
from bench.record.run_folder import RunFolder
from bench.terminal import say
from bench.variables import TURNS
from launch.gate.referee import Place, referee
from launch.interrupts import undisturbed

# How often a side's process is looked at while the referee has nothing to do.
POLL_S = 0.1
# From SIGTERM to SIGKILL: a launch may need a minute to end processes that wait inside a driver.
PATIENCE_S = 100.0


@dataclass(frozen=True)
class Side:
    """`base` or `head`: its commit, the checkout of it, where its rows go, and what runs one launch of it.

    `command`: the number of a pair -> the words of a process that is started in `tree`.
    """

    name: str
    commit: str
    tree: Path
    folder: Path
    OUTPUT: ClassVar[str] = "tables.txt"
    """File in its folder for what its launches print. ERRORS: where their stderr goes; None: to ours."""
    ERRORS: ClassVar[int | None] = None
    STALL_S: ClassVar[float] = math.inf
    """So long a pair may go on without a turn's end; a trial's own launch has an eye on that."""

    command: Callable[[int], Sequence[str]]
    variables: Mapping[str, str]

    def rows(self) -> list[dict[str, str]]:
        """The rows of its launches so far."""
        return RunFolder(self.folder).rows("trials")

    def finish(self, number: int, code: int, round: str) -> None:
        """Record the round of its launches of this pair, which have ended with this exit code and left their rows.

        Only the gate knows which launches it has made to be compared, and their commits may be older than rounds.csv.
        """
        folder = RunFolder(self.folder)
        known = {row["launch_id"] for row in folder.rows("rounds")}
        new = [row["launch_id"] for row in folder.rows("trials") if row["launch_id"] not in known]
        if new:
            folder.append("rounds", [{"launch_id": launch_id, "round": round} for launch_id in new])

    def start(self, number: int, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start this side's launch of the pair. Raises UsageError if the folder takes no file."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            output = open(self.folder / self.OUTPUT, "a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"cannot write {self.folder}: {error.strerror}; choose another --out") from error
        with output:
            return subprocess.Popen(
                self.command(number),
                cwd=self.tree,
                env={**without_repository(), **self.variables, **more},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=self.ERRORS,
                start_new_session=True,  # so that Ctrl-C reaches only us, and we pass it on once
                preexec_fn=procfs.end_with_parent,  # should we be killed
            )

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Have a launch end, which writes its row first."""
        process.terminate()

    def give_up(self, process: subprocess.Popen[bytes]) -> None:
        """End a launch that has stalled."""
        process.kill()


def in_turns(sides: Sequence[Side], number: int) -> tuple[list[int], str]:
    """(each side's exit code, why the pair ended before its time, "": it did not) of launches that take turns."""
    processes: list[subprocess.Popen[bytes]] = []
    stall = Stall(min(side.STALL_S for side in sides))
    with referee([side.name for side in sides]) as judge:
        try:
            for side, place in zip(sides, judge.sides, strict=True):
                with undisturbed():  # a signal in between would leave it running
                    processes.append(side.start(number, {TURNS: str(place.address)}))
            while None in [process.poll() for process in processes]:  # a list: any() would not poll them all
                judge.serve(POLL_S)
                stall.look(sides, judge.sides, processes)
                for side, process in zip(sides, processes, strict=True):
                    # Also one that ended before it was ready, of which the referee knows nothing.
                    if process.returncode:
                        judge.end(f"the launch of {side.name} ended before its time")
                    elif process.returncode == 0 and any(place.hello for place in judge.sides):
                        judge.end(f"the launch of {side.name} takes no more turns")
        finally:
            end(sides, processes)
    raise_interrupted(processes, judge.broken)
    return [process.returncode for process in processes], judge.broken


def wait(side: Side, process: subprocess.Popen[bytes]) -> None:
    """Wait for a launch that has the machine for itself; it is ended if it takes longer than a turn ever may."""
    try:
        process.wait(None if math.isinf(side.STALL_S) else side.STALL_S)
    except subprocess.TimeoutExpired:
        say(f"{side.name} has not ended within {side.STALL_S:.0f} s, and is ended")
        side.give_up(process)
        process.wait()


class Stall:
    """Ends the launches for which the others have waited longer than this."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.since, self.last = seconds, time.monotonic(), ""

    def look(
        self, sides: Sequence[Side], places: Sequence[Place], processes: Sequence[subprocess.Popen[bytes]]
    ) -> None:
        """Call this while they run."""
        now = repr([(place.hello, sorted(place.waiting), place.window_s, place.left) for place in places])
        if now != self.last:
            self.last, self.since = now, time.monotonic()
        elif time.monotonic() - self.since > self.seconds:
            for side, place, process in zip(sides, places, processes, strict=True):
                if process.poll() is None and not place.all_wait():
                    say(f"{side.name} has not taken its turn for {self.seconds:.0f} s, and is ended")
                    side.give_up(process)
            self.since = time.monotonic()


def one_by_one(sides: Sequence[Side], number: int) -> list[int]:
    """Each side's exit code, of launches one after the other in this order."""
    codes = []
    for side in sides:
        processes: list[subprocess.Popen[bytes]] = []
        try:
            with undisturbed():
                processes.append(side.start(number, {}))
            wait(side, processes[0])
        finally:
            end([side], processes)
        raise_interrupted(processes, "")
        codes.append(processes[0].returncode)
    return codes


def end(sides: Sequence[Side], processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End those that still run; fewer than sides if one could not be started."""
    for side, process in zip(sides, processes, strict=False):
        if process.poll() is None:
            side.stop(process)
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
