"""Which questions does the suite answer? Each file here is one experiment, found by its name."""

from __future__ import annotations

import importlib
import pkgutil

from bench.errors import UsageError
from bench.experiment import Experiment


def names() -> list[str]:
    """The names of all experiments, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Experiment:
    """The experiment of this name. Raises UsageError if there is none."""
    if name not in names():
        raise UsageError(f"no experiment {name!r}; choose from: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}").EXPERIMENT
