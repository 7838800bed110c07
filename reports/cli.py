"""The commands of `python -m reports`. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.record import UsageError
from reports import dictionary, table
from reports.read import trials

USAGE = """usage: python -m reports show RUN_FOLDER
       python -m reports columns README.md

show      the trials of a run folder in tables, beside the published figures
columns   write the dictionary of all CSV columns into a Markdown file, between its markers
"""
COMMANDS = {
    "show": lambda path: table.show(trials(path)),
    "columns": dictionary.write,
}


def main(words: Sequence[str]) -> None:
    """Run the command and exit: 0 well, 2 the request cannot be met."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        sys.exit(0 if words else 2)
    try:
        if words[0] not in COMMANDS:
            raise UsageError(f"no command {words[0]!r}; choose from: {', '.join(COMMANDS)}")
        if set(words) & {"-h", "--help"}:
            print(USAGE, end="")
            return
        if len(words) != 2:
            raise UsageError(f"{words[0]} takes one path, not {len(words) - 1}; see python -m reports --help")
        COMMANDS[words[0]](Path(words[1]))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
