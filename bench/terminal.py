"""Output for a person at a terminal: notes on stderr, paragraphs, and tables that fit. Imports no torch.

What is printed keeps to the width of the terminal. A pipe or a file has no width: it gets every column and unbroken
lines, the same on each machine, for it may be searched, compared or read in a window of any size. COLUMNS=80 gives it
the terminal's form.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.called import as_called

BLANK = "\xa0"
"""A space at which `paragraph` does not break a line. It is printed as a plain one."""
GAP = 2  # between two columns of a table
EDGES = 2  # the blanks at the left and right edge of a table
WIDE = "--wide prints all"
WINDOW = "a wider window, or COLUMNS=200, shows all"


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


@dataclass(frozen=True)
class Grid:
    """A table to print: its headings, which may have several lines, and the cells of each row.

    The first `telling` columns tell the rows apart; their headings may be broken at an underscore. `important` has
    headings, the most important first; those that it does not name follow from left to right. `left` has the headings
    of columns of words. `bold` has indexes of rows.
    """

    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    telling: int = 1
    important: Sequence[str] = ()
    left: Sequence[str] = ()
    title: str = ""
    bold: Sequence[int] = ()


def watched(stream: IO[str] | None = None) -> IO[str] | None:
    """The stream (None: stderr, if there is one) for output that may be lost."""
    stream = stream or sys.stderr
    return cast(IO[str], BestEffortStream(stream)) if stream else None


def say(text: str, stream: IO[str] | None = None) -> None:
    """Print a line to the stream (None: stderr). It may be lost."""
    print(as_called(text), file=watched(stream), flush=True)


def room(console: Console) -> int | None:
    """How wide the console's lines may be; None: a pipe or a file has no width, unless COLUMNS gives it one."""
    columns = os.environ.get("COLUMNS", "")
    given = columns.isdecimal() and int(columns) > 0
    return console.width if console.is_terminal or given else None


def paragraph(console: Console, text: str, indent: str = "") -> None:
    """Print a text, each of its lines wrapped between words where it is wider than the room. No word is broken."""
    width = room(console)
    for line in as_called(text).split("\n"):
        wrapped = indent + line
        if width is not None:
            wrapped = textwrap.fill(
                line,
                width,
                initial_indent=indent,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        console.print(wrapped.replace(BLANK, " "), markup=False, highlight=False, soft_wrap=True)


def print_grid(console: Console, grid: Grid, wide: bool = False, more: str = WIDE) -> None:
    """Print a table. Columns are taken whole, the most important first, as they fit; a line says what is left out.

    `wide`: print all columns in any case; `more`: how the reader gets them.
    """
    width = None if wide else room(console)
    if width is not None:
        heads = [head.replace("_", "_\n") if index < grid.telling else head for index, head in enumerate(grid.heads)]
        grid = dataclasses.replace(grid, heads=heads)
    kept = fitting(grid, width)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, title_justify="left")
    table.title = escape(grid.title) or None
    for index in kept:
        words = index == 0 or plain(grid.heads[index]) in grid.left
        most = first_width(grid, width) if index == 0 and width is not None else None
        table.add_column(
            escape(grid.heads[index]),
            justify="left" if words else "right",
            no_wrap=most is None,
            max_width=most,
            overflow="fold",
        )
    for number, line in enumerate(grid.lines):
        table.add_row(*(escape(line[index]) for index in kept), style="bold" if number in grid.bold else None)
    table.width = console.measure(table, options=console.options.update(width=1000)).maximum
    console.print(table, soft_wrap=True)
    if out := [plain(head) for index, head in enumerate(grid.heads) if index not in kept]:
        tell = [plain(head) for index, head in enumerate(grid.heads[: grid.telling]) if index not in kept]
        among = f", among them {', '.join(tell)}, in which rows differ" if tell else ""
        how_many = f"left out at a width of {width}: {len(out)} of {len(grid.heads)} columns{among}"
        paragraph(console, f"{how_many}; {more}", "  ")


def fitting(grid: Grid, width: int | None) -> list[int]:
    """The indexes of the columns that fit, from left to right: of each in the order of importance, whether it does."""
    heads = list(map(plain, grid.heads))
    if width is None:
        return list(range(len(heads)))
    wanted = [*range(1, grid.telling), *(heads.index(head) for head in grid.important if head in heads)]
    taken, kept = EDGES + first_width(grid, width), [0]
    for index in dict.fromkeys([*wanted, *range(1, len(heads))]):
        own = GAP + cells_width(grid, index)
        if index and taken + own <= width:
            taken, kept = taken + own, [*kept, index]
    return sorted(kept)


def cells_width(grid: Grid, index: int) -> int:
    """How wide a column is."""
    texts = [*grid.heads[index].split("\n"), *(line[index] for line in grid.lines)]
    return max(map(cell_len, texts))


def first_width(grid: Grid, width: int) -> int:
    """How wide the first column is: a quarter at most, where its names are longer and can be broken between words."""
    words = [word for line in grid.lines for word in line[0].split()]
    longest = max(map(cell_len, words), default=0)
    return min(cells_width(grid, 0), max(width // 4, min(longest, width // 2)))


def plain(head: str) -> str:
    """A heading in one line."""
    return " ".join(head.replace("_\n", "_").split())
