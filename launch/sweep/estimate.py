"""How long may trials take, judging by the rows that are there? Imports no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from bench.machine import environment, nvml
from bench.record.csvfile import cell
from bench.trial import Trial

# Settings that do not change the time of an epoch.
NO_EFFECT = {"experiment", "arm", "repeat", "epochs", "seed", "lr", "lr_batch", "milestones", "gamma", "warmup"}
NO_EFFECT |= {"warmup_windows", "target_accuracy", "stop_at_target", "experiment_file"}


class Estimator:
    """Time per trial, from rows of one machine.

    The median of the trial's own rows, over all repeats. If it has none, the median time per epoch of the rows that
    differ only in settings of NO_EFFECT, times the trial's epochs.
    """

    def __init__(self) -> None:
        self.durations: dict[str, list[float]] = {}
        """Trial key -> seconds of each row."""
        self.epoch_durations: dict[tuple[str, ...], list[float]] = {}
        """Settings that change the time of an epoch -> seconds per epoch of each row."""

    def add(self, row: Mapping[str, Any]) -> bool:
        """Learn from a row of trials.csv, its values as text or not. Returns whether it was of use: it must have ended
        well and not have been resumed."""
        try:
            # A trial that stopped at its target trained fewer epochs; older rows do not say how many.
            seconds, epochs = float(row["duration_s"]), int(row.get("epochs_trained") or row["epochs"])
            settings = tuple(cell(row[name]) for name in compared())
        except (KeyError, TypeError, ValueError):
            return False
        whole = row.get("status") == "ok" and row.get("resumed_at_epoch") in (None, "")
        if not whole or not 0 < seconds < math.inf or epochs < 1:
            return False
        self.durations.setdefault(str(row["trial_key"]), []).append(seconds)
        if not row.get("feature_pass_s"):  # which does not take longer for more epochs
            self.epoch_durations.setdefault(settings, []).append(seconds / epochs)
        return True

    def seconds(self, trial: Trial) -> float | None:
        """What the trial may take from start to end; None: unknown."""
        if durations := self.durations.get(trial.key()):
            return statistics.median(durations)
        if durations := self.epoch_durations.get(tuple(cell(getattr(trial, name)) for name in compared())):
            return statistics.median(durations) * trial.epochs
        return None


def compared() -> list[str]:
    """The settings that change the time of an epoch."""
    return [name for name in Trial().settings() if name not in NO_EFFECT]


def from_rows(rows: Iterable[Mapping[str, str]], gpus: int) -> tuple[Estimator, int]:
    """(an estimator from the rows that were made on this machine's GPUs or CPU, how many of them were of use)."""
    estimator = Estimator()
    machine = {name: cell(environment.machine()[name]) for name in ("host", "cpu_model", "cpu_count")}
    devices = nvml.device_names() if gpus else {"cpu"}
    here = (row for row in rows if all(row.get(name) == value for name, value in machine.items()))
    return estimator, sum(estimator.add(row) for row in here if is_on(row.get("device_name"), devices))


def is_on(device: str | None, devices: Collection[str] | None) -> bool:
    """Whether a row was made on one of these devices; None: on any GPU, as a Jetson's has no name in NVML."""
    return device in devices if devices is not None else device not in (None, "", "cpu")


def summary(estimates: Sequence[float | None], rows: int, parallel: int = 1) -> str:
    """The time of several trials: about 12 min for 20 of 24 trials (from 8 rows of this machine); ...

    `estimates`: seconds of each trial; None: unknown. `parallel`: so many run side by side.
    """
    known = [seconds for seconds in estimates if seconds is not None]
    missing = len(estimates) - len(known)
    if not known:
        return f"no row of this machine says how long {trials(missing)} may take"
    what = trials(len(estimates)) if not missing else f"{len(known)} of {trials(len(estimates))}"
    text = f"about {duration(sum(known) / parallel)} for {what} (from {rows} row{'s' * (rows != 1)} of this machine)"
    return f"{text}; {missing} {'has' if missing == 1 else 'have'} no row to go by" if missing else text


def trials(count: int) -> str:
    """1 trial, 2 trials."""
    return f"{count} trial{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """A time in the unit that fits it: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
