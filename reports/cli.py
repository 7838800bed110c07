"""The commands of `python -m reports`. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.record import UsageError
from reports import compare, dictionary, exact, merge, table
from reports.read import trials

USAGE = """usage: python -m reports show RUN_FOLDER
       python -m reports compare BASE HEAD [--margin SHARE] [--level SHARE] [--fail-inconclusive]
       python -m reports gate exact RUN_FOLDER [BASELINE.csv]
       python -m reports merge RUN_FOLDER... -o NEW_FOLDER
       python -m reports columns README.md

show      the trials of a run folder in tables, beside the published figures
compare   what changed from one run folder to another on the same machine, by how much and how surely; exit code 0:
          nothing got worse by more than the margin (2%) as far as can be told, 1: something did, 3: something is
          missing or not comparable, 4: of something nothing could be told and --fail-inconclusive was given;
          all that it says together is wrong by chance no more often than --level (5%)
gate      exact: hold the counts of a run of studies/exact.toml (operations, FLOPs, casts, all-reduces, parameters)
          against studies/exact.csv, to the last one; exit code 0: equal, 1: not, 3: no baseline for this torch
merge     join run folders, as of several machines, each launch once
columns   write the dictionary of all CSV columns into a Markdown file, between its markers
"""
# The commands that take one path.
OF_ONE_PATH: dict[str, Callable[[Path], None]] = {
    "show": lambda path: table.show(trials(path)),
    "columns": dictionary.write,
}
COMMANDS = ("show", "compare", "gate", "merge", "columns")


def main(words: Sequence[str]) -> None:
    """Run the command and exit: 0 well, 2 the request cannot be met; compare has codes of its own."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        sys.exit(0 if words else 2)
    try:
        if words[0] not in COMMANDS:
            raise UsageError(f"no command {words[0]!r}; choose from: {', '.join(COMMANDS)}")
        if set(words) & {"-h", "--help"}:
            print(USAGE, end="")
            return
        if words[0] == "merge":
            merge.run(words[1:])
            return
        if words[0] == "compare":
            sys.exit(compare.run(words[1:]))
        if words[0] == "gate":
            if words[1:2] != ["exact"]:
                raise UsageError("gate has one tier as yet; give gate exact")
            sys.exit(exact.run(words[2:]))
        if len(words) != 2:
            raise UsageError(f"{words[0]} takes one path, not {len(words) - 1}; see python -m reports --help")
        OF_ONE_PATH[words[0]](Path(words[1]))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
