"""What a user sees of a sweep: bars on a terminal; elsewhere a line for each trial that ends, and of long ones more."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bench.record import progress
from bench.terminal import watched
from launch.sweep.estimate import lasting

LINE_S = 30.0


class Display:
    """Bars for the trials under way, and one for all `trials` together."""

    def __init__(self, trials: int) -> None:
        self.console = Console(file=watched(), stderr=True, highlight=False)
        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
        ]
        self.bars = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.all = self.bars.add_task(f"{trials} trials", total=trials, note="", visible=trials > 1)
        self.shown: dict[str, TaskID] = {}
        self.epochs: dict[str, tuple[int, float]] = {}

    def __enter__(self) -> Display:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def show(self, title: str, state: dict[str, Any]) -> None:
        """Draw this state of a trial (see bench.record.progress); empty: it is starting."""
        if title not in self.shown:
            self.shown[title] = self.bars.add_task(title, total=None, note="starting")
            self.epochs[title] = (0, time.monotonic())
        if not state:
            return
        done, total, note = progress.place(state)
        self.bars.update(self.shown[title], completed=done, total=total, note=note)
        epoch, said_at = self.epochs[title]
        if not self.console.is_terminal and state["epoch"] > epoch and time.monotonic() - said_at > LINE_S:
            self.epochs[title] = (state["epoch"], time.monotonic())
            self.line(f"{title}: {state['epoch']} of {state['epochs']} epochs")

    def ended(self, title: str, line: str, done: int, left_s: float | None) -> None:
        """A trial has ended with this line, as the `done`th of all; what the others may take, if that is known."""
        if (task := self.shown.pop(title, None)) is not None:
            self.bars.remove_task(task)
        left = "" if left_s is None else f"about {lasting(left_s)} left"
        self.bars.update(self.all, completed=done, note=left)
        plain = f" ({left})" if left and not self.console.is_terminal else ""
        self.line(f"{title}: {line}{plain}")

    def line(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)
