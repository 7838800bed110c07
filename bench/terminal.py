"""Output for a person at a terminal: notes on stderr, and tables. Imports no torch."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import IO, Any, cast

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class BestEffortStream:
    """A stream whose reader may disappear, as when a terminal is closed. Writing to it then does nothing."""

    stream: IO[str]

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def watched(stream: IO[str] | None = None) -> IO[str] | None:
    """The stream (None: stderr, if there is one) for output that may be lost."""
    stream = stream or sys.stderr
    return cast(IO[str], BestEffortStream(stream)) if stream else None


def say(text: str, stream: IO[str] | None = None) -> None:
    """Print a line to the stream (None: stderr). It may be lost."""
    print(text, file=watched(stream), flush=True)


def wide(console: Console, table: Table) -> None:
    """Print a table in its full width. By default rich cuts cells to the terminal's width, and to 80 in a file."""
    table.width = console.measure(table, options=console.options.update(width=1000)).maximum
    console.print(table, soft_wrap=True)
