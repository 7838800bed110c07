"""The commands of `python -m reports`: each file here is one, found by its name.

Its docstring is its help. `arguments(parser)` declares what it takes; `run(options)` does it and returns the exit code,
None for 0. What is slow to import, it imports in `run`.
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
    """The module of this command. UsageError: there is none."""
    if name not in names():
        raise UsageError(f"no command {name!r}; choose from: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
