"""Which commands has `python -m reports`? Each file here is one, found by its name.

Its docstring is its help. `arguments(parser)` declares its arguments; `run(options)` returns the exit code, None for 0.
`run` imports what is slow to import, so that --help stays fast.
"""

from __future__ import annotations

from typing import Any

from bench import discovery


def names() -> list[str]:
    """The names of the commands, sorted."""
    return discovery.names(__name__)


def load(name: str) -> Any:
    """The module of this command. Raises UsageError if there is none."""
    return discovery.load(__name__, name, "command")
