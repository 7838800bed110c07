"""Runs trials, one after another or side by side, whatever happens to them or to this process."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.failure.causes import Cause, Interrupted
from bench.options import Options, new_id
from bench.record.columns import FILES
from bench.record.run_folder import RunFolder
from bench.trial import Trial
from launch.group import accelerate_command, folder_lock, trial_launch
from launch.group.starter import ColdStarter, Starter
from launch.group.trial_launch import Launch, RunContext
from launch.group.warm_starter import WarmStarter
from launch.group.watchdog import Watchdog
from launch.multi_node import coordinator
from launch.run_options import RunOptions
from launch.sweep import estimate, study_folder
from launch.sweep.display import Display

POLL_S = 0.1


def never(trial: Trial) -> str | None:
    """No trial is over its limit before it has been tried."""
    return None


def run_all(
    trials: Sequence[Trial],
    options: Options,
    run_options: RunOptions,
    gpus: int,
    axes: Sequence[str],
    over_limit: Callable[[Trial], str | None] = never,
    prepare: Callable[[], object] = bool,
) -> int:
    """Run the trials; 0: all ended well, 1: some did not, 2: a request could not be met, 130: interrupted.

    A trial that is `over_limit`, and why, gets its row and is not started. `prepare` is called when nobody else writes
    to the folder.
    """
    with contextlib.suppress(Interrupted), handling(interrupt), run_context(options, gpus, run_options) as context:
        if run_options.machine_rank > 0:
            return coordinator.run_as_other_machine(context, trials)
        prepare()

        def work(context: RunContext) -> int:
            return run_sweep(titled(trials, axes), context, over_limit).code()

        return coordinator.run_as_machine_0(context, trials, work) if trials[0].machines > 1 else work(context)
    return 130


def run_sweep(
    waiting: list[tuple[str, Trial]], context: RunContext, over_limit: Callable[[Trial], str | None] = never
) -> Sweep:
    """Run titled trials: what came of them. Interrupted: a signal asked for the end, and has it."""
    with Display(len(waiting)) as display:
        sweep = Sweep(waiting, context, over_limit, display)
        try:
            sweep.run()
        finally:
            with undisturbed():
                sweep.end()
    return sweep


@contextlib.contextmanager
def run_context(options: Options, gpus: int, run_options: RunOptions) -> Iterator[RunContext]:
    """All that launches need, for as long as this lasts: the folder to itself, a guard, a starter.

    UsageError: the folder cannot take the rows that will come, or is in use.
    """
    folder, runner_id = RunFolder(options.out), new_id()
    folder.prepare()
    with folder_lock.claim(folder, runner_id, run_options.machine_rank) as claim, scratch() as room:
        ready(folder, claim)
        if run_options.machine_rank == 0:
            trial_launch.clear(folder)
        guard = Watchdog(runner_id, claim.file.fileno(), room)
        log = folder.logs() / f"{runner_id}.warm.log"
        starter: Starter = (
            ColdStarter() if run_options.cold or accelerate_command.starts_cold(gpus) else WarmStarter(runner_id, log)
        )
        try:
            guard.watch()
            yield RunContext(runner_id, claim, guard, starter, room, options, run_options, gpus)
        finally:
            with undisturbed():
                starter.close()
                guard.close()
                with contextlib.suppress(OSError):
                    if log.stat().st_size == 0:
                        log.unlink()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what nobody needs afterwards."""
    path = Path(tempfile.mkdtemp(prefix="resbench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def ready(folder: RunFolder, claim: folder_lock.FolderLock) -> None:
    """UsageError, now and not after hours of training: the folder cannot take the rows that will come."""
    claim.check()
    folder.prepare()
    for file in FILES:
        if (folder.path / f"{file}.csv").exists():
            folder.append(file, [])


@dataclass
class Sweep:
    """Trials with their titles, and how far they have come. `over_limit`: why a trial is not to be started."""

    waiting: list[tuple[str, Trial]]
    run_context: RunContext
    over_limit: Callable[[Trial], str | None]
    display: Display
    ended: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    """Title, exit code and row of each that has."""
    under_way: list[Launch] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = RunFolder(self.run_context.options.out).rows("trials")
        self.all = len(self.waiting)
        self.estimator, _ = estimate.of_rows(rows, self.run_context.gpus)
        if self.run_context.options.resume:
            self.leave_out(study_folder.finished(rows, self.run_context.run_options.retry_failed))

    def leave_out(self, finished: Collection[tuple[str, str]]) -> None:
        """Do not run these again."""
        for title, trial in list(self.waiting):
            if (trial.key(), str(trial.repeat)) in finished:
                self.waiting.remove((title, trial))
                self.display.ended(title, "has its row already", self.all - len(self.waiting), None)

    def run(self) -> None:
        """Run what has no row yet. UsageError: the folder takes no more."""
        while self.waiting or self.under_way:
            while self.waiting and len(self.under_way) < self.run_context.run_options.parallel:
                if (devices := self.devices(self.waiting[0][1])) is None:
                    if not self.under_way:
                        raise UsageError(
                            f"--processes needs more GPUs than the {accelerate_command.gpu_count()} that are left"
                        )
                    break
                self.begin(*self.waiting.pop(0), devices)
            self.run_context.guard.watch()
            self.run_context.claim.check()
            self.run_context.starter.wait(POLL_S)
            for launch in list(self.under_way):
                self.display.show(launch.title, launch.state())
                if launch.over():
                    with undisturbed():
                        self.conclude(launch)

    def begin(self, title: str, trial: Trial, devices: list[str]) -> None:
        """Start a trial, unless it is known not to fit."""
        ready(RunFolder(self.run_context.options.out), self.run_context.claim)
        self.run_context.starter.check()
        launch = Launch(trial, self.run_context, title, devices)
        if why := self.over_limit(trial):
            self.note(launch, 0, launch.skip(why))
            return
        self.under_way.append(launch)
        self.display.show(title, {})
        launch.start()

    def devices(self, trial: Trial) -> list[str] | None:
        """GPUs for the trial that no other under way has, none where it runs alone; None: too few are free."""
        if self.run_context.run_options.parallel == 1:
            return []
        taken = {name for launch in self.under_way for name in launch.devices}
        free = [name for name in accelerate_command.visible_gpus() if name not in taken]
        return free[: trial.processes] if len(free) >= trial.processes else None

    def conclude(self, launch: Launch, undone: Cause | None = None) -> None:
        """Bring a trial to its end and its row."""
        self.under_way.remove(launch)
        code, row = launch.finish(undone)
        self.note(launch, code, row)
        if code == 130 or (code and self.run_context.run_options.fail_fast):
            self.waiting.clear()

    def note(self, launch: Launch, code: int, row: dict[str, Any]) -> None:
        """Remember how a trial ended, and say so."""
        self.ended.append((launch.title, code, row))
        self.estimator.add(row)
        done = self.all - len(self.waiting) - len(self.under_way)
        self.display.ended(launch.title, trial_launch.summary(row), done, self.left_s())

    def left_s(self) -> float | None:
        """Seconds that the trials not yet begun may take; None: not known, or there are none."""
        known = [seconds for _, trial in self.waiting if (seconds := self.estimator.seconds(trial)) is not None]
        if not known:
            return None
        return sum(known) / len(known) * len(self.waiting) / self.run_context.run_options.parallel

    def end(self) -> None:
        """Give up what is under way, and sum up."""
        error = sys.exc_info()[1]
        said = str(error) if isinstance(error, Interrupted) else f"stopped with the sweep: {error}"
        while self.under_way:
            error = self.give_up(self.under_way[0], said) or error
        if self.all > 1:
            self.sum_up()
        if error is not None:
            raise error

    def give_up(self, launch: Launch, said: str) -> UsageError | None:
        """End a trial before its time; returned: there is no room for its row, and others are to be ended yet."""
        try:
            self.conclude(launch, Cause("interrupted", said))
        except UsageError as error:
            return error
        return None

    def sum_up(self) -> None:
        """What failed, and why: what ended alike stands in one line."""
        alike: dict[tuple[str, str], list[str]] = {}
        for title, _, row in self.ended:
            if row["status"] != "ok":
                alike.setdefault((row["status"], reason(row)), []).append(title)
        if alike:
            self.display.line(f"{sum(map(len, alike.values()))} of {self.all} trials did not end well:")
        for (status, why), titles in alike.items():
            more = f" and {len(titles) - 1} more" if len(titles) > 1 else ""
            self.display.line(f"  {status}: {titles[0]}{more}: {why}")

    def code(self) -> int:
        """The command's exit code."""
        return max((code for _, code, _ in self.ended), default=0)


def titled(trials: Sequence[Trial], axes: Sequence[str]) -> list[tuple[str, Trial]]:
    """Each trial with its number and what is its own among the others."""
    found = []
    for number, trial in enumerate(trials, 1):
        title = f"[{number}/{len(trials)}] {trial.experiment} {trial.arm}"
        found.append((title + "".join(f" {name}={getattr(trial, name)}" for name in axes), trial))
    return found


def reason(row: dict[str, Any]) -> str:
    """A row's error without the path of its log, which is another in each."""
    return str(row["error"]).rpartition(" (logs/")[0] or str(row["error"])


def interruptible(work: Callable[[], int | None]) -> int | None:
    """The work's exit code, or 130 where a signal asked for its end."""
    with contextlib.suppress(Interrupted), handling(interrupt):
        return work()
    return 130


@contextlib.contextmanager
def handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Signals that ask for an end go to the handler in here, but none that nohup or a shell's & has switched off."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def interrupt(number: int, frame: object) -> None:
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)  # the end is under way; handling() puts back what was
    raise Interrupted(f"stopped by {signal.Signals(number).name}")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C takes effect at the end of this: it must not leave processes behind, nor a trial without its row."""
    came: list[int] = []
    with handling(lambda number, frame: came.append(number)):
        yield
    for number in came[:1]:
        signal.raise_signal(number)
