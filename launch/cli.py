"""`python -m launch`: finds the command and runs it. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import CODES, Ended, one_sentence
from launch import commands
from launch.interrupts import interruptible


def usage() -> str:
    """A line for each command."""
    names = commands.names()
    width = max(map(len, names))
    summaries = {name: commands.load(name).__doc__.partition(".\n")[0] for name in names}
    lines = [f"python -m launch {name:<{width}}  {summary}" for name, summary in summaries.items()]
    return "\n".join(
        ["usage: python -m launch COMMAND ...; python -m launch COMMAND --help explains it", "", *lines, "", CODES]
    )


def main(words: Sequence[str]) -> None:
    """Run the command and exit: 0 well, 1 a trial failed, 2 the request cannot be met, 130 interrupted.

    70: what nobody foresaw.
    """
    with one_sentence():
        if not words or words[0] in ("-h", "--help"):
            print(usage())
            raise Ended(0 if words else 2)
        name, rest = words[0], list(words[1:])
        command = commands.load(name)
        if {"-h", "--help"} & set(rest) and not getattr(command, "OWN_HELP", False):
            print(command.__doc__.rstrip())
            raise Ended(0)
        raise Ended(interruptible(lambda: command.run(rest)) or 0)
