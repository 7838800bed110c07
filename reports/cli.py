"""The command line of `python -m reports`. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import CODES, Ended, one_sentence
from reports import commands
from reports.arguments import Parser


def usage() -> str:
    """A line for each command."""
    width = max(map(len, commands.names())) + 3
    firsts = {name: commands.load(name).__doc__.strip().partition(".\n")[0].rstrip(".") for name in commands.names()}
    lines = [f"{name:<{width}}{first}" for name, first in firsts.items()]
    return "\n".join(
        ["usage: python -m reports COMMAND ...; python -m reports COMMAND --help explains it", "", *lines, "", CODES]
    )


def main(words: Sequence[str]) -> None:
    """Run the command and exit: 0 well, 2 the request cannot be met, 70 what nobody foresaw, 130 interrupted.

    Commands that judge have codes of their own.
    """
    with one_sentence():
        if not words or words[0] in ("-h", "--help"):
            print(usage())
            raise Ended(0 if words else 2)
        command = commands.load(words[0])
        parser = Parser(words[0], command.__doc__)
        command.arguments(parser)
        if (code := command.run(parser.parse_args(words[1:]))) is not None:
            raise Ended(code)
