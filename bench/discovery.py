"""Modules that are found by their folder, such as experiments, probes and commands: to add one is to add a file."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from bench.errors import UsageError
from models.nearest import perhaps


def names(package: str) -> list[str]:
    """The names of the modules in a package, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))


def load(package: str, name: str, kind: str) -> Any:
    """The module of this name, a `kind` such as "command". Raises UsageError if there is none."""
    if name not in names(package):
        known = names(package)
        raise UsageError(f"no {kind} {name!r}{perhaps(name, known)}; choose from: {', '.join(known)}")
    return importlib.import_module(f"{package}.{name}")


def load_all(package: str) -> list[Any]:
    """All modules of a package, sorted by name."""
    return [importlib.import_module(f"{package}.{name}") for name in names(package)]
