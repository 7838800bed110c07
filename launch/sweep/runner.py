"""Runs trials, one after another or side by side. Each gets one row, even if it fails or this process is stopped."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.errors import UsageError
from bench.failure.causes import Cause, Interrupted
from bench.options import Options
from bench.trial import Trial
from launch.group import accelerate_command, missing_row
from launch.group.run_context import RunContext, run_context
from launch.group.trial_launch import Launch
from launch.interrupts import handling, interrupt, undisturbed
from launch.multi_node import coordinator
from launch.run_options import RunOptions
from launch.sweep import estimate, matrix, study_folder
from launch.sweep.display import Display

# A trial's end is noticed within this time.
POLL_S = 0.1
OverLimit = Callable[[Trial], str | None]
"""Why a trial is not to be started; None: it is."""


def never(trial: Trial) -> str | None:
    """An OverLimit that starts every trial."""
    return None


def run_all(
    trials: Sequence[Trial],
    options: Options,
    run_options: RunOptions,
    gpus: int,
    axes: Sequence[str],
    over_limit: OverLimit = never,
    prepare: Callable[[], object] = lambda: None,
) -> int:
    """Run the trials; returns 0: all ended well, 1: some did not, 2: a request could not be met, 130: interrupted.

    A trial that is `over_limit` gets its row and is not started. `prepare` is called once the folder is locked.
    """
    with contextlib.suppress(Interrupted), handling(interrupt), run_context(options, gpus, run_options) as context:
        if run_options.machine_rank > 0:
            return coordinator.run_as_other_machine(context, trials)
        prepare()

        def work(context: RunContext) -> int:
            return run_sweep(matrix.titled(trials, axes), context, over_limit).exit_code()

        return coordinator.run_as_machine_0(context, trials, work) if trials[0].machines > 1 else work(context)
    return 130


def run_sweep(waiting: list[tuple[str, Trial]], context: RunContext, over_limit: OverLimit = never) -> Sweep:
    """Run these (title, trial)s. Raises Interrupted once a signal has ended it in good order."""
    with Display(len(waiting)) as display:
        sweep = Sweep(waiting, context, over_limit, display)
        try:
            sweep.run()
        finally:
            with undisturbed():
                sweep.finish()
    return sweep


@dataclass
class Sweep:
    """(title, trial)s that wait, launches that run, and the results of those that have ended."""

    waiting: list[tuple[str, Trial]]
    context: RunContext
    over_limit: OverLimit
    display: Display
    running: list[Launch] = field(default_factory=list)
    ended: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    """Title, exit code, row."""

    def __post_init__(self) -> None:
        rows = study_folder.read_rows(self.context.options.out)
        self.total = len(self.waiting)
        how, several = self.context.run_options, len({trial.key() for _, trial in self.waiting}) > 1
        self.in_rounds = several and how.order == "interleaved" and how.repeats > 1 and how.parallel == 1
        self.estimator, _ = estimate.from_rows(rows, self.context.gpus)
        if self.context.options.resume:
            self.skip_finished(rows)

    def skip_finished(self, rows: list[dict[str, str]]) -> None:
        """Do not run trials again that have their row."""
        finished = study_folder.finished(rows, self.context.run_options.retry_failed)
        for title, trial in list(self.waiting):
            if study_folder.identity(trial) in finished:
                self.waiting.remove((title, trial))
                self.display.ended(title, "has its row already", self.total - len(self.waiting), None)

    def run(self) -> None:
        """Run all that wait. Raises UsageError if the folder cannot take more rows."""
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.context.run_options.parallel:
                if (devices := self.free_devices(self.waiting[0][1])) is None:
                    if not self.running:  # waiting would not help: a GPU is lost
                        raise UsageError(
                            f"--processes needs more GPUs than the {accelerate_command.gpu_count()} that are left"
                        )
                    break
                self.start(*self.waiting.pop(0), devices)
            self.context.watchdog.ensure_running()
            self.context.lock.check()  # before rows are written into a folder that is no longer ours
            self.context.starter.wait(POLL_S)
            for launch in list(self.running):
                self.display.show(launch.title, launch.progress())
                if launch.watch():
                    with undisturbed():  # a signal between its end and its row would leave it without one
                        self.finish_launch(launch)

    def start(self, title: str, trial: Trial, devices: list[str]) -> None:
        """Start a trial, unless it is over its limit."""
        self.context.check_folder()
        self.context.starter.check()
        launch = Launch(trial, self.context, title, devices)
        if reason := self.over_limit(trial):
            self.record(launch, 0, missing_row.write_over_limit(launch.folder, launch.first_row(), reason))
            return
        self.running.append(launch)
        self.display.show(title, {})
        launch.start()

    def free_devices(self, trial: Trial) -> list[str] | None:
        """GPUs for the trial that no other one uses; None: too few are free. Empty (all) if trials run one by one."""
        if self.context.run_options.parallel == 1:
            return []
        taken = {name for launch in self.running for name in launch.devices}
        free = [name for name in accelerate_command.visible_gpus() if name not in taken]
        return free[: trial.processes] if len(free) >= trial.processes else None

    def finish_launch(self, launch: Launch, cause: Cause | None = None) -> None:
        """End a launch, which leaves its row in the run folder. `cause`: why it is ended before its time."""
        self.running.remove(launch)
        exit_code, row = launch.finish(cause)
        if self.in_rounds:
            made_in = f"{self.context.runner_id}-{launch.trial.repeat}"
            launch.folder.append("rounds", [{"launch_id": launch.launch_id, "round": made_in}])
        self.record(launch, exit_code, row)
        if exit_code == 130 or (exit_code and self.context.run_options.fail_fast):
            self.waiting.clear()

    def record(self, launch: Launch, exit_code: int, row: dict[str, Any]) -> None:
        """Keep the result of a trial, and print it."""
        self.ended.append((launch.title, exit_code, row))
        self.estimator.add(row)
        done = self.total - len(self.waiting) - len(self.running)
        self.display.ended(launch.title, missing_row.summary(row), done, self.remaining_s())

    def remaining_s(self) -> float | None:
        """Seconds that the waiting trials may take; None: unknown, or none wait.

        A trial without an estimate counts as the mean of the others.
        """
        estimates = [seconds for _, trial in self.waiting if (seconds := self.estimator.seconds(trial)) is not None]
        if not estimates:
            return None
        return sum(estimates) / len(estimates) * len(self.waiting) / self.context.run_options.parallel

    def finish(self) -> None:
        """End what still runs after an error or a signal, and print which trials failed. Raises that error again."""
        error = sys.exc_info()[1]
        reason = str(error) if isinstance(error, Interrupted) else f"stopped with the sweep: {error}"
        while self.running:
            error = self.interrupt(self.running[0], Cause("interrupted", reason)) or error
        if self.total > 1:
            self.print_failures()
        if error is not None:
            raise error

    def interrupt(self, launch: Launch, cause: Cause) -> UsageError | None:
        """End a launch before its time. An error is returned, not raised: other launches have to be ended too."""
        try:
            self.finish_launch(launch, cause)
        except UsageError as error:
            return error
        return None

    def print_failures(self) -> None:
        """One line for all trials that failed with the same status and error."""
        failures: dict[tuple[str, str], list[str]] = {}
        for title, _, row in self.ended:
            if row["status"] != "ok":
                # The path of the log at the end of an error is another for each trial.
                error = str(row["error"]).rpartition(" (logs/")[0] or str(row["error"])
                failures.setdefault((row["status"], error), []).append(title)
        if failures:
            self.display.line(f"{sum(map(len, failures.values()))} of {self.total} trials did not end well:")
        for (status, error), titles in failures.items():
            more = f" and {len(titles) - 1} more" if len(titles) > 1 else ""
            self.display.line(f"  {status}: {titles[0]}{more}: {error}")

    def exit_code(self) -> int:
        """The command's: the worst of its trials'."""
        return max((exit_code for _, exit_code, _ in self.ended), default=0)
