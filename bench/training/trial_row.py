"""The trial's row of trials.csv while the trial runs: what it holds so far, and where it is saved and written."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.experiment import Experiment
from bench.failure.causes import Cause
from bench.instruments.peaks import share_of_peak
from bench.record import to_target
from bench.record.ceiling_columns import in_number_format
from bench.record.columns import ACCURACIES
from bench.record.csvfile import write_whole
from bench.record.rank_columns import slowest
from bench.record.rows import BEGAN, first_row
from bench.record.run_folder import RunFolder
from bench.terminal import say
from bench.training.meter import Meter
from bench.trial import Trial
from bench.variables import LAUNCH_DETAILS, LAUNCH_ID

# The copy for the launcher is saved at most once a second and takes a hundredth of the time, but is due after ten
# seconds: one save that a busy disk held up would otherwise put off the next one for minutes.
SAVE_EVERY_S, SAVE_EVERY_RATIO, SAVE_WITHIN_S = 1.0, 100.0, 10.0


@dataclass
class Counts:
    """How far training has come, earlier launches included."""

    epoch: int = 0
    optimizer_steps: int = 0
    images_seen: int = 0
    at_target: bool = False
    """Whether the last epoch reached the accuracy at which the trial stops."""


class TrialRow:
    """The row as one rank knows it. Only rank 0 saves and writes it.

    `values` are columns that do not change any more, `evaluated` those of the last evaluation, `epochs` this launch's
    rows of epochs.csv; the columns of the probes come from `meter`, once there is one. `places`: of each rank, its
    machine and device.
    """

    def __init__(self, trial: Trial, experiment: Experiment, launch_id: str, folder: RunFolder, rank: int) -> None:
        self.trial, self.launch_id, self.folder, self.rank = trial, launch_id, folder, rank
        self.began_s = time.monotonic()
        self.has_launcher = bool(os.environ.get(LAUNCH_ID))
        started: dict[str, Any] = json.loads(os.environ.get(LAUNCH_DETAILS, "{}"))
        self.requested_s: float | None = started.get("requested_s")
        self.values = first_row(trial, experiment, launch_id)
        self.values |= {name: started.get(name) for name in ("started_by", "parallel")}
        if not self.has_launcher:
            self.values["log"] = None  # started by hand, the ranks print to the terminal
        self.evaluated: dict[str, Any] = {}
        self.epochs: list[dict[str, Any]] = []
        self.places: list[dict[str, Any]] = []
        self.meter: Meter | None = None
        self.counts = Counts()
        self.skipped_steps = 0
        self.save_after_s = 0.0
        self.written = False
        self.copy = folder.logs() / f"{launch_id}.row.json"

    def group_formed(self) -> None:
        """Note how long it took from the launcher's request until now."""
        if self.requested_s is not None:
            self.values["startup_s"] = round(time.monotonic() - self.requested_s, 3)

    def count(self, rows: list[dict[str, Any]], skipped_steps: int) -> None:
        """Add windows by their rows of steps.csv. `skipped_steps`: in all, what `Training.skipped_steps` returns."""
        self.counts.optimizer_steps += len(rows) - (skipped_steps - self.skipped_steps)
        self.counts.images_seen += sum(row["images"] for row in rows)
        self.skipped_steps = skipped_steps

    def current(self) -> dict[str, Any]:
        """The row as of now, without status and error. Involves no other rank."""
        measured = self.meter.trial() if self.meter else {}
        rate = measured.get("images_per_s")
        trial = self.trial
        return {
            **self.values,
            **measured,
            "images_per_s_per_process": rate and rate / trial.processes,  # None stays None
            "mfu": self.mfu(measured.get("model_flops_per_s")),
            **slowest(self.ranks()),
            **self.evaluated,
            **to_target.cells(self.epochs, self.trial.target_accuracy),
            "epochs_trained": self.counts.epoch,
            "duration_s": round(time.monotonic() - self.began_s, 3),
            "optimizer_steps": self.counts.optimizer_steps,
            "images_seen": self.counts.images_seen,
            "skipped_steps": self.skipped_steps if trial.precision == "fp16" else None,
        }

    def ranks(self) -> list[dict[str, Any]]:
        """The rows of ranks.csv as of now, rank 0 first; none before training. Involves no other rank."""
        measured = self.meter.ranks() if self.meter else []
        pairs = enumerate(zip(self.places, measured, strict=False))
        return [{"launch_id": self.launch_id, "rank": rank, **place, **values} for rank, (place, values) in pairs]

    def mfu(self, flops_per_s: float | None) -> float | None:
        """The model's FLOP/s as a share of the peak of all devices; None also where ranks have different ones."""
        name, count = self.values.get("device_name"), self.values.get("device_count") or 0
        if len({place["device_name"] for place in self.places}) > 1:
            return None
        return share_of_peak(flops_per_s, name, count, in_number_format(self.trial.precision, self.trial.tf32))

    def save(self) -> None:
        """Save a copy from which the launcher writes the row if this process is killed. Call it off the clock."""
        began_s = time.monotonic()
        if self.rank == 0 and began_s >= self.save_after_s and self.has_launcher:
            write_whole(self.copy, json.dumps({**self.current(), BEGAN: self.began_s}))
            now_s = time.monotonic()
            self.save_after_s = now_s + min(max(SAVE_EVERY_S, SAVE_EVERY_RATIO * (now_s - began_s)), SAVE_WITHIN_S)

    def append_epoch(self, values: dict[str, Any], per_class: Sequence[dict[str, Any]]) -> None:
        """Append an epoch's row to epochs.csv, and after the last one those of per_class.csv."""
        for file, rows in (("epochs", [values]), ("per_class", per_class)):
            if rows:
                self.folder.append(file, [{"launch_id": self.launch_id, **row} for row in rows])

    def write(self, cause: Cause) -> None:
        """Append the row to trials.csv and those of ranks.csv, once. Raises UsageError if they cannot be written."""
        if self.rank != 0 or self.written:
            return
        log = f" ({self.values['log']})" if self.values["log"] else ""
        row = {**self.current(), **cause.columns(), "error": cause.error + log if cause.error else None}
        if cause.status == "diverged":
            row |= dict.fromkeys(ACCURACIES)  # those of an earlier epoch are in epochs.csv
        if cause.silent and self.has_launcher:  # only the launcher can find out whether memory ran out, and writes it
            write_whole(self.copy, json.dumps({**row, BEGAN: self.began_s}))
            return
        self.folder.append("trials", [row])
        self.written = True
        self.folder.append("ranks", self.ranks())
        self.copy.unlink(missing_ok=True)
        if not self.has_launcher:
            path = self.folder.path
            say(f"{cause.status}: the row is in {path}/trials.csv; see python -m reports show {path}", sys.stdout)
