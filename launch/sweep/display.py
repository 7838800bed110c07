"""What a user sees of a sweep: bars on a terminal; elsewhere a line when a trial ends, and during long trials."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import TaskID

from bench.record import progress
from launch.sweep.estimate import duration

# Off a terminal, a trial's progress is printed at the end of an epoch, and at most this often.
LINE_S = 30.0


class Display(progress.Bars):
    """A bar for each running trial, and one for all `trials` together."""

    def __init__(self, trials: int) -> None:
        super().__init__()
        self.all = self.bars.add_task(f"{trials} trials", total=trials, note="", visible=trials > 1)
        self.tasks: dict[str, TaskID] = {}
        self.epochs: dict[str, tuple[int, float]] = {}
        """Title -> (the epoch that was last printed, when)."""

    def show(self, title: str, state: dict[str, Any]) -> None:
        """Draw this state of a trial (see bench.record.progress); an empty one means that it is starting."""
        if title not in self.tasks:
            self.tasks[title] = self.bars.add_task(title, total=None, note="starting")
            self.epochs[title] = (0, time.monotonic())
        if not state:
            return
        done, total, note = progress.position(state)
        self.bars.update(self.tasks[title], completed=done, total=total, note=note)
        epoch, printed = self.epochs[title]
        if not self.console.is_terminal and state["epoch"] > epoch and time.monotonic() - printed > LINE_S:
            self.epochs[title] = (state["epoch"], time.monotonic())
            self.line(f"{title}: {state['epoch']} of {state['epochs']} epochs")

    def ended(self, title: str, line: str, done: int, remaining_s: float | None) -> None:
        """Print this line for a trial, the `done`th that has ended, and how long the others may take; None: unknown."""
        if (task := self.tasks.pop(title, None)) is not None:
            self.bars.remove_task(task)
        left = "" if remaining_s is None else f"about {duration(remaining_s)} left"
        self.bars.update(self.all, completed=done, note=left)
        plain = f" ({left})" if left and not self.console.is_terminal else ""
        self.line(f"{title}: {line}{plain}")
