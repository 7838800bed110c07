"""The command line of `python -m reports`. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from bench.arguments import Parser
from bench.errors import Ended, one_sentence
from bench.screen import screen
from reports import commands


def usage() -> str:
    """The commands, on one screen."""
    return screen("python -m reports", {name: commands.load(name) for name in commands.names()})


def parser(name: str) -> Parser:
    """The command's. Raises UsageError if there is no such command."""
    command = commands.load(name)
    found = Parser(f"python -m reports {name}", command.__doc__)
    command.arguments(found)
    return found


def main(words: Sequence[str]) -> None:
    """Run the command and exit: 0 well, 2 the request cannot be met, 70 what nobody foresaw, 130 interrupted.

    Commands that judge have codes of their own.
    """
    with one_sentence():
        if not words or words[0] in ("-h", "--help"):
            print(usage())
            raise Ended(0 if words else 2)
        options = parser(words[0]).parse_args(words[1:])
        if (code := commands.load(words[0]).run(options)) is not None:
            raise Ended(code)
