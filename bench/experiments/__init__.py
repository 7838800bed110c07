"""Which questions does the suite answer? Each file here is one experiment, found by its name."""

from __future__ import annotations

from bench import discovery
from bench.experiment import Experiment


def names() -> list[str]:
    """The names of all experiments, sorted."""
    return discovery.names(__name__)


def load(name: str) -> Experiment:
    """The experiment of this name. Raises UsageError if there is none."""
    return discovery.load(__name__, name, "experiment").EXPERIMENT
