"""Progress of one trial: from the rank that knows it, over a file, to whoever shows it. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench.terminal import watched

if TYPE_CHECKING:
    from typing_extensions import Self

VARIABLE = "RESBENCH_PROGRESS"
T = TypeVar("T")


class Bars:
    """Progress bars on stderr where that is a terminal; elsewhere none, only lines."""

    def __init__(self) -> None:
        self.console = Console(file=watched(), stderr=True, highlight=False)
        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
        ]
        self.bars = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)


class Display(Bars):
    """One trial's bar; off a terminal, a line for each epoch."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title, self.epoch = title, -1
        self.task = self.bars.add_task(title, total=None, note="starting")

    def show(self, state: dict[str, Any]) -> None:
        """Draw this state (see `tell`)."""
        if not state:
            return
        done, total, note = place(state)
        self.bars.update(self.task, completed=done, total=total, note=note)
        if not self.console.is_terminal and state["epoch"] > self.epoch >= 0:
            # Read after the next epoch's first windows, the state is no longer about the one that ended.
            ended = f"epoch {state['epoch']}/{state['epochs']} {'' if state['window'] else figures(state)}"
            self.line(f"{self.title}: {ended.strip()}")
        self.epoch = state["epoch"]


def place(state: dict[str, Any]) -> tuple[int, int, str]:
    """(windows done, windows in all, a note) of what was told."""
    total, done = state["windows"] * state["epochs"], state["windows"] * state["epoch"] + state["window"]
    epoch = f"epoch {min(state['epoch'] + 1, state['epochs'])}/{state['epochs']}"
    return done, total, f"{epoch} {figures(state)}"


def figures(state: dict[str, Any]) -> str:
    """Throughput and loss, as far as they were told."""
    return " ".join(text for text in (_rate(state.get("images_per_s")), _loss(state.get("train_loss"))) if text)


def _rate(value: float | None) -> str:
    return "" if value is None else rate(value)


def rate(images_per_s: float) -> str:
    """Four digits, or the whole number where it has more."""
    return f"{images_per_s:.0f} images/s" if images_per_s >= 1000 else f"{images_per_s:.4g} images/s"


def _loss(value: float | None) -> str:
    return "" if value is None else f"loss {value:.3f}"


class ProgressWriter:
    """Rank 0's side: to the file that the environment names, or else to a display of its own."""

    def __init__(self, title: str) -> None:
        path = os.environ.get(VARIABLE)
        self.path = Path(path) if path else None
        self.display = None if path else Display(title)

    def __enter__(self) -> ProgressWriter:
        if self.display:
            self.display.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self.display:
            self.display.__exit__()

    def tell(self, state: dict[str, Any]) -> None:
        """epoch, epochs, window (done in the epoch), windows (in an epoch), images_per_s, train_loss."""
        if self.display:
            self.display.show(state)
        elif self.path:
            with contextlib.suppress(OSError):  # progress is a courtesy: a full disk shows where it matters
                scratch = self.path.with_suffix(".new")
                scratch.write_text(json.dumps(state))
                os.replace(scratch, self.path)


def beat() -> None:
    """Say that the trial goes on where there is nothing to tell: a launcher ends one that no longer does."""
    if path := os.environ.get(VARIABLE):
        with contextlib.suppress(OSError):
            os.utime(path)


def beating(batches: Iterator[T]) -> Iterator[T]:
    """The same batches, with a beat at most once a second."""
    last = time.monotonic()
    for batch in batches:
        yield batch
        if time.monotonic() - last > 1.0:
            last = time.monotonic()
            beat()


def read(path: Path) -> dict[str, Any]:
    """What rank 0 last told; empty before it did."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def state_after(rows: list[dict[str, Any]], epoch: int, epochs: int, per_epoch: int) -> dict[str, Any]:
    """What to tell after a block of windows, from their rows of steps.csv."""
    images = sum(row["images"] for row in rows)
    return {
        "epoch": epoch,
        "epochs": epochs,
        "window": rows[-1]["window"] + 1,
        "windows": per_epoch,
        "images_per_s": images / sum(row["step_time_s"] for row in rows),
        "train_loss": sum(row["train_loss"] * row["images"] for row in rows) / images,
    }
