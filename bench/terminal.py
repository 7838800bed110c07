"""What a person at the terminal reads: notes on stderr, and tables. Imports no torch."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import IO, Any, cast

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class BestEffortStream:
    """A stream whose reader may go, as a terminal that closes: what is written then is lost, and nothing else is."""

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
    """The stream, or stderr if there is one, for what somebody may watch and nothing depends on."""
    stream = stream or sys.stderr
    return cast(IO[str], BestEffortStream(stream)) if stream else None


def say(text: str, stream: IO[str] | None = None) -> None:
    """A line for whoever watches the stream, or stderr."""
    print(text, file=watched(stream), flush=True)


def wide(console: Console, table: Table) -> None:
    """Print a table as wide as it is: in a narrow terminal, or a file, its cells would be cut."""
    table.width = console.measure(table, options=console.options.update(width=1000)).maximum
    console.print(table, soft_wrap=True)
