"""Which commands has `python -m reports`? Each file here is one, found by its name.

Its docstring is its help. `arguments(parser)` declares its arguments; `run(options)` returns the exit code, None for 0.
`run` imports what is slow to import, so that --help stays fast.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from bench.errors import UsageError


def names() -> list[str]:
    """The names of the commands, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Any:
    """The module of this command. Raises UsageError if there is none."""
    if name not in names():
        raise UsageError(f"no command {name!r}; choose from: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
