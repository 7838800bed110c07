"""Experiment trackers (TensorBoard and others), through Accelerate: what epochs.csv gets, they get too.

They are told between epochs, when no window is timed. Imports no torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.csvfile import cell
from bench.trial import Trial, UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator

PROJECT = "resbench"


def check(names: Sequence[str]) -> None:
    """UsageError: a tracker is none that Accelerate knows by its package's name, or is not installed."""
    for name in names:
        if not name.isidentifier() or importlib.util.find_spec(name) is None:
            raise UsageError(f"--log-with is {name!r}, which is not installed here; try: pip install {name}")


class Trackers:
    """The trackers of one launch. Only rank 0's say anything; of no names, none does."""

    def __init__(self, names: Sequence[str], accelerator: Accelerator, folder: Path, launch: str) -> None:
        """UsageError: Accelerate does not know one of them, or it cannot begin."""
        self.accelerator = accelerator if names else None
        if self.accelerator is None:
            return
        from accelerate.tracking import filter_trackers

        path = folder / "trackers" / launch
        self.accelerator.project_configuration.set_directories(str(path))
        try:
            self.accelerator.log_with = filter_trackers(list(names), str(path))
        except ValueError as error:
            raise UsageError(f"--log-with: {' '.join(str(error).split())}") from error

    def begin(self, trial: Trial) -> None:
        """Tell them the trial's settings. UsageError: one of them cannot begin."""
        if self.accelerator is None:
            return
        known = {name: v if isinstance(v, (int, float, str)) else cell(v) for name, v in trial.settings().items()}
        try:
            self.accelerator.init_trackers(PROJECT, config=known)
        except Exception as error:  # whatever a service's own package raises
            raise UsageError(f"--log-with: a tracker cannot begin: {type(error).__name__}: {error}") from error

    def tell(self, row: Mapping[str, Any], epoch: int) -> None:
        """Give them the numbers of an epoch's row."""
        if self.accelerator is not None:
            numbers = {name: value for name, value in row.items() if isinstance(value, (int, float))}
            self.accelerator.log({name: value for name, value in numbers.items() if name != "epoch"}, step=epoch)

    def end(self) -> None:
        """Let them write what they have yet to write."""
        if self.accelerator is not None:
            self.accelerator.end_training()
            self.accelerator = None
