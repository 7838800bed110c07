"""`python -m launch`: finds the command and runs it. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from bench.arguments import HELP_ALL, Parser
from bench.errors import Ended, one_sentence
from bench.screen import screen
from launch import commands
from launch.interrupts import before_any_trial, interruptible


def usage() -> str:
    """The commands, on one screen."""
    return screen("python -m launch", {name: commands.load(name) for name in commands.names()})


def parser(name: str) -> Parser:
    """The command's. Raises UsageError if there is no such command."""
    command = commands.load(name)
    found = Parser(f"python -m launch {name}", command.__doc__)
    command.arguments(found)
    found.examples = tuple(f"{found.prog} {words}" for words in getattr(command, "EXAMPLES", ()))
    return found


def main(words: Sequence[str]) -> None:
    """Run the command and exit: 0 well, 1 a trial failed, 2 the request cannot be met, 130 interrupted.

    70: what nobody foresaw.
    """
    with one_sentence():
        if not words or words[0] in ("-h", "--help"):
            print(usage())
            raise Ended(0 if words else 2)
        with before_any_trial():
            command, found, rest = commands.load(words[0]), parser(words[0]), words[1:]
            by_itself = hasattr(command, "read") and not {"-h", "--help", HELP_ALL} & set(rest)
            options = command.read(rest) if by_itself else found.parse_args(rest)
        raise Ended(interruptible(lambda: command.run(options)) or 0)
