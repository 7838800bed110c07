"""What can be asked of `python -m launch`? Each file here is one command, found by its name.

Its docstring is its help, and the first sentence its line in `python -m launch --help`. `run(words)` runs it and
returns the exit code, None for 0. A command parses its words, calls a room below, and prints; slow imports, such as
torch, stand in `run`. A command that sets OWN_HELP prints its help itself.
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
