"""What can be asked of `python -m launch`? Each file here is one command, found by its name.

Its docstring is its help, and the first sentence its line in `python -m launch --help`, under the question GROUP.
EXAMPLES, the words of real calls, end its help. `arguments(parser)` declares its arguments. `run(options)` runs it and
returns the exit code, None for 0: it calls a room below, and prints; slow imports, such as torch, stand in it. Where
words are not its own, as those for pytest, a command has a `read(words)` too, whose result `run` gets.
"""

from __future__ import annotations

from typing import Any

from bench import discovery


def names() -> list[str]:
    """The commands there are, sorted."""
    return discovery.names(__name__)


def load(name: str) -> Any:
    """The module of this command. Raises UsageError if there is none."""
    return discovery.load(__name__, name, "command")
