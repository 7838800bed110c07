"""Experiment trackers (TensorBoard and others), through Accelerate: they get the numbers of epochs.csv.

They are called between epochs, when no step is timed. Imports no torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError, one_line
from bench.record.csvfile import cell
from bench.terminal import say
from bench.trial import Trial

if TYPE_CHECKING:
    from accelerate import Accelerator

PROJECT = "resbench"
# The trackers of Accelerate, each by its package's name. Accelerate's own list would have to import torch.
NAMES = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")


def check(names: Sequence[str]) -> None:
    """Raises UsageError if a tracker is none of Accelerate's or is not installed."""
    for name in names:
        if name not in NAMES:
            raise UsageError(f"--log-with is {name!r}; choose from: {', '.join(NAMES)}")
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a folder of that name, such as wandb's, is no package
            raise UsageError(f"--log-with is {name!r}, which is not installed here; try: pip install {name}")


class ExperimentTrackers:
    """The trackers of one launch; with no names, none. Accelerate has rank 0 alone report to them."""

    def __init__(self, names: Sequence[str], accelerator: Accelerator, folder: Path, launch: str) -> None:
        """Raises UsageError if this version of Accelerate does not know or find one of them."""
        self.accelerator = accelerator if names else None
        if self.accelerator is None:
            return
        from accelerate.tracking import filter_trackers

        path = folder / "trackers" / launch
        self.accelerator.project_configuration.set_directories(str(path))
        try:
            found = filter_trackers(list(names), str(path))
        except ValueError as error:  # an older version, which has fewer of them
            raise UsageError(f"--log-with: {one_line(error)}") from error
        if missing := set(names) - set(map(str, found)):
            raise UsageError(f"--log-with: Accelerate finds no {', '.join(sorted(missing))} here; leave it out")
        self.accelerator.log_with = found

    def begin(self, trial: Trial) -> None:
        """Start them with the trial's settings. Raises UsageError if one fails to."""
        if self.accelerator is None:
            return
        known = {name: v if isinstance(v, (int, float, str)) else cell(v) for name, v in trial.settings().items()}
        try:
            self.accelerator.init_trackers(PROJECT, config=known)
        except Exception as error:  # whatever a service's own package raises
            raise UsageError(f"--log-with: a tracker cannot begin: {one_line(error)}") from error

    def log(self, row: Mapping[str, Any], epoch: int) -> None:
        """Log the numbers of an epoch's row."""
        numbers = {name: value for name, value in row.items() if isinstance(value, (int, float)) and name != "epoch"}
        with self.or_without():
            if self.accelerator is not None:
                self.accelerator.log(numbers, step=epoch)

    def end(self) -> None:
        """Have them write what they still hold."""
        with self.or_without():
            if self.accelerator is not None:
                self.accelerator.end_training()

    @contextlib.contextmanager
    def or_without(self) -> Iterator[None]:
        """A tracker that fails ends no trial: print why, and go on without trackers."""
        try:
            yield
        except Exception as error:
            say(f"--log-with: a tracker failed, and the trial goes on without: {one_line(error)}")
            self.accelerator = None
