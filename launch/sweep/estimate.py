"""How long trials may take, from the rows that are there. Imports no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from bench.machine import environment, nvml
from bench.record.csvfile import cell
from bench.trial import Trial

# Settings on which the time of an epoch does not depend; an arm's name is no setting at all.
FREE = {"experiment", "arm", "repeat", "epochs", "seed", "lr", "lr_batch", "milestones", "gamma", "warmup"}
FREE |= {"warmup_windows"}


class Estimator:
    """Time per trial from finished rows of one machine.

    The median of the trial's own rows, whatever repeat they are; without any, that of rows which differ in nothing
    that changes the time of an epoch, in proportion to the epochs.
    """

    def __init__(self) -> None:
        self.own: dict[str, list[float]] = {}
        self.alike: dict[tuple[str, ...], list[float]] = {}

    def add(self, row: Mapping[str, Any]) -> bool:
        """Learn from a row of trials.csv, as text or not; whether it says anything, as only whole, good launches do."""
        try:
            seconds, epochs = float(row["duration_s"]), int(row["epochs"])
            alike = tuple(cell(row[name]) for name in compared())
        except (KeyError, TypeError, ValueError):
            return False
        whole = row.get("status") == "ok" and row.get("resumed_at_epoch") in (None, "")
        if not whole or not 0 < seconds < math.inf or epochs < 1:
            return False
        self.own.setdefault(str(row["trial_key"]), []).append(seconds)
        self.alike.setdefault(alike, []).append(seconds / epochs)
        return True

    def seconds(self, trial: Trial) -> float | None:
        """What the trial may take from start to end; None: no row says."""
        if own := self.own.get(trial.key()):
            return statistics.median(own)
        if alike := self.alike.get(tuple(cell(getattr(trial, name)) for name in compared())):
            return statistics.median(alike) * trial.epochs
        return None


def compared() -> list[str]:
    """The settings that must be equal for two trials' epochs to take as long."""
    return [name for name in Trial().settings() if name not in FREE]


def of_rows(rows: Iterable[Mapping[str, str]], gpus: int) -> tuple[Estimator, int]:
    """(what the rows of this machine, on its GPUs or its CPU, say; how many they are)."""
    found = Estimator()
    machine = {name: cell(environment.machine()[name]) for name in ("host", "cpu_model", "cpu_count")}
    devices = nvml.device_names() if gpus else {"cpu"}
    here = (row for row in rows if all(row.get(name) == value for name, value in machine.items()))
    return found, sum(found.add(row) for row in here if is_on(row.get("device_name"), devices))


def is_on(device: str | None, devices: Collection[str] | None) -> bool:
    """Whether a row was made on one of these devices; None: on a GPU, whose name a Jetson does not tell before."""
    return device in devices if devices is not None else device not in (None, "", "cpu")


def in_words(known: Sequence[float | None], rows: int, parallel: int = 1) -> str:
    """The time that trials may take in a sentence: about 12 min for 20 of 24 trials (from 8 rows of this machine); ...

    `parallel`: so many run side by side.
    """
    found = [seconds for seconds in known if seconds is not None]
    missing = len(known) - len(found)
    if not found:
        return f"no row of this machine says how long {trials(missing)} may take"
    what = trials(len(known)) if not missing else f"{len(found)} of {trials(len(known))}"
    text = f"about {lasting(sum(found) / parallel)} for {what} (from {rows} row{'s' * (rows != 1)} of this machine)"
    return f"{text}; {missing} {'has' if missing == 1 else 'have'} no row to go by" if missing else text


def trials(count: int) -> str:
    """1 trial, 2 trials."""
    return f"{count} trial{'s' * (count != 1)}"


def lasting(seconds: float) -> str:
    """A time to reckon with: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
