"""Progress of one trial: rank 0 writes it to a file, and the launcher reads and shows it. Imports no torch.

The file's time of modification is the heartbeat of the trial: a launcher ends a trial whose file stays untouched.
"""

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

from bench.column import digits
from bench.terminal import watched

if TYPE_CHECKING:
    from typing_extensions import Self

VARIABLE = "RESBENCH_PROGRESS"
T = TypeVar("T")


class Bars:
    """Progress bars on stderr if that is a terminal; otherwise lines alone."""

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
    """One trial's bar; without a terminal, a line for each epoch."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title, self.epoch = title, -1
        self.task = self.bars.add_task(title, total=None, note="starting")

    def show(self, state: dict[str, Any]) -> None:
        """Draw this state (see `ProgressWriter.publish`)."""
        if not state:
            return
        done, total, note = position(state)
        self.bars.update(self.task, completed=done, total=total, note=note)
        if not self.console.is_terminal and state["epoch"] > self.epoch >= 0:
            # Read after the next epoch's first windows, the state is no longer about the one that ended.
            ended = f"epoch {state['epoch']}/{state['epochs']} {'' if state['window'] else figures(state)}"
            self.line(f"{self.title}: {ended.strip()}")
        self.epoch = state["epoch"]


def position(state: dict[str, Any]) -> tuple[int, int, str]:
    """(steps done, steps in all, a note such as "epoch 2/10 1071 images/s")."""
    total, done = state["windows"] * state["epochs"], state["windows"] * state["epoch"] + state["window"]
    epoch = f"epoch {min(state['epoch'] + 1, state['epochs'])}/{state['epochs']}"
    return done, total, f"{epoch} {figures(state)}"


def figures(state: dict[str, Any]) -> str:
    """Throughput and loss, as far as they are known."""
    images_per_s, loss = state.get("images_per_s"), state.get("train_loss")
    parts = ["" if images_per_s is None else rate(images_per_s), "" if loss is None else f"loss {loss:.3f}"]
    return " ".join(filter(None, parts))


def rate(images_per_s: float) -> str:
    """A throughput: 1071 images/s."""
    return f"{digits(images_per_s)} images/s"


class ProgressWriter:
    """Rank 0's side: it writes to the launcher's file or, started by hand, draws its own bar."""

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

    def publish(self, state: dict[str, Any]) -> None:
        """Publish a state, with the keys epoch (those done), epochs, window (steps done in the epoch), windows (in an
        epoch) and, if known, images_per_s and train_loss."""
        if self.display:
            self.display.show(state)
        elif self.path:
            with contextlib.suppress(OSError):  # a full disk ends the trial where rows are written, not here
                scratch = self.path.with_suffix(".new")
                scratch.write_text(json.dumps(state), encoding="utf-8")
                os.replace(scratch, self.path)


def beat() -> None:
    """Show the launcher that the trial is alive when it has no progress to publish."""
    if path := os.environ.get(VARIABLE):
        with contextlib.suppress(OSError):
            os.utime(path)


def beating(batches: Iterator[T]) -> Iterator[T]:
    """The same batches, with a `beat` about once a second."""
    last = time.monotonic()
    for batch in batches:
        yield batch
        if time.monotonic() - last > 1.0:
            last = time.monotonic()
            beat()


def read(path: Path) -> dict[str, Any]:
    """The state that rank 0 published last; empty before the first."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def state_after(rows: list[dict[str, Any]], epoch: int, epochs: int, per_epoch: int) -> dict[str, Any]:
    """The state after these rows of steps.csv, for `ProgressWriter.publish`."""
    images = sum(row["images"] for row in rows)
    return {
        "epoch": epoch,
        "epochs": epochs,
        "window": rows[-1]["window"] + 1,
        "windows": per_epoch,
        "images_per_s": images / sum(row["step_time_s"] for row in rows),
        "train_loss": sum(row["train_loss"] * row["images"] for row in rows) / images,
    }
