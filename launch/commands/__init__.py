"""What can be asked of `python -m launch`? Each file here is one command, found by its name.

Its docstring is its help, and the first sentence its line in `python -m launch --help`. `run(words)` runs it and
returns the exit code, None for 0. A command parses its words, calls a room below, and prints; slow imports, such as
torch, stand in `run`. A command that sets OWN_HELP prints its help itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from bench.errors import UsageError


def names() -> list[str]:
    """The commands there are, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Any:
    """The module of this command. Raises UsageError if there is none."""
    if name not in names():
        raise UsageError(f"no command {name!r}; choose from: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
