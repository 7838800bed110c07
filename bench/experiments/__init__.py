"""Which questions does the suite answer? Each file here is one experiment, found by its name."""

from __future__ import annotations

from bench import discovery, own_file
from bench.experiment import Experiment
from bench.trial import Trial


def names() -> list[str]:
    """The names of all experiments, sorted."""
    return discovery.names(__name__)


def load(name: str) -> Experiment:
    """The experiment of this name, or in the file of this path. Raises UsageError if there is none."""
    return own_file.load(name) if own_file.is_path(name) else discovery.load(__name__, name, "experiment").EXPERIMENT


def of(trial: Trial) -> Experiment:
    """The experiment that the trial belongs to. Raises UsageError if there is none."""
    return own_file.of(trial) if trial.experiment_file else load(trial.experiment)
