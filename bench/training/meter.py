"""Runs the probes inside the training loop, and combines what the ranks measured.

Windows are read out in blocks of about a second: one wait for the device and two collectives each, off the clock. Which
of them are measured is decided then, for all ranks alike. What reading takes is the meter's own total, probe_time_s: it
knows when the probes are read.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from bench.column import Column
from bench.instruments.clock import clock_for
from bench.machine import compiler
from bench.probes import Aggregation, Cell, Probe, Span, Value, combine, difference, probe_modules
from bench.record.columns import columns
from bench.training.windows import Window

Gather = Callable[[list[float]], list[list[float]]]
BLOCK_S = 1.0
# On a GPU warm-up lasts this long too, while its clocks rise and kernels are loaded, but for half the windows at most.
WARMUP_S = 1.0
OWN: dict[str, Aggregation] = {"probe_time_s": ("counter", "max")}
NONE = -math.inf  # "no measurement" on its way through a collective; a loss can be nan or inf


class Meter:
    """The probes of one rank. `gather` takes this rank's numbers and returns every rank's, rank 0 first.

    `windows`: how many there will be. Not measured are the warm-up's; with any warm-up, a GPU's first second's and the
    first of each size of micro-batch; and with none too, those in which torch compiled.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        gather: Gather,
        warmup_windows: int,
        device: torch.device,
        windows: float = math.inf,
    ) -> None:
        self.probes, self.gather, self.warmup_windows = probes, gather, warmup_windows
        self.warmup_s = WARMUP_S if device.type == "cuda" and warmup_windows else 0.0
        self.most_by_time = windows / 2
        self.run_s, self.windows_read = 0.0, 0
        self.sizes: set[int] = set()  # of micro-batches so far
        self.compiled = compiler.steps_taken()
        self.unlike: list[bool] = []  # of each pending window: whether it does what the others do not, on this rank
        self.step_columns = {column.name: column for column in columns("steps")}
        self.over = {name: over for probe in probes for name, over in probe.TOTALS.items()} | OWN
        self.reading_since: float | None = None
        self.probe_time_s = 0.0
        self.pending: list[dict[str, Any]] = []
        self.block = 1
        self.windows_run = 0
        self.measured: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []
        self.clock = clock_for(device)
        for probe in probes:
            probe.clock = self.clock
            probe.begin(device)
        self.start = self.now = self.epoch_start = self._totals()

    def epoch_begin(self) -> None:
        """The first micro-batch of an epoch has been fetched."""
        self.epoch_start, self.epoch_rows = self.now, len(self.measured)
        self.reading_since = time.perf_counter()
        for probe in self.probes:
            probe.epoch_begin()
        self._go_on()

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches; the first is fetched off the clock, and waiting for the others is measured."""
        batch = next(batches, None)
        self.epoch_begin()
        while batch is not None:
            yield batch
            asked = time.perf_counter()
            batch = next(batches, None)
            waited = time.perf_counter() - asked
            for probe in self.probes:
                probe.batch_fetched(waited)

    def window_begin(self, window: Window) -> None:
        """The window's first micro-batch is about to go forward."""
        self.compiled = compiler.steps_taken()
        warmup_left = max(0, self.warmup_windows - self.windows_run)
        for probe in self.probes:
            probe.window_begin(window.images, warmup_left)

    def communication_begin(self, loss_sum: torch.Tensor) -> None:
        """The window's last micro-batch is about to go backward, and to share the gradients."""
        for probe in self.probes:
            probe.communication_begin(loss_sum)

    def communication_end(self) -> None:
        """It has."""
        for probe in self.probes:
            probe.communication_end()

    def micro_batch_end(self, loss_sum: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """A micro-batch has gone forward and backward."""
        for probe in self.probes:
            probe.micro_batch_end(loss_sum, logits, labels)

    def window_end(self, window: Window, facts: dict[str, Any]) -> list[dict[str, Any]]:
        """The optimizer has stepped. Rows of steps.csv, the same on every rank, when a block is full; else none.

        After rows, `resume` is due.
        """
        measured = self.windows_run >= self.warmup_windows
        self.windows_run += 1
        for probe in self.probes:
            probe.window_end(window.images, measured)
        self.clock.mark()
        self.unlike.append(self._is_unlike(window))
        self.pending.append({**facts, "window": window.index, "images": window.images, "measured": measured})
        if len(self.pending) < self.block:
            return []
        return self.read()

    def _is_unlike(self, window: Window) -> bool:
        """Whether it is the first with a micro-batch of its size, which plans and loads, or torch compiled in it."""
        sizes = {stop - start for start, stop in window.passes}
        first = bool(self.warmup_windows) and not sizes <= self.sizes
        self.sizes |= sizes
        return first or compiler.steps_taken() > self.compiled

    def resume(self) -> None:
        """The rows have been dealt with. Waits for the rank that had to write them: no window is to wait for it."""
        self.gather([0.0])
        self._go_on()

    def _go_on(self) -> None:
        """Start the clocks, now that nothing is left to read."""
        self._count_reading()
        self.reading_since = None
        for probe in self.probes:
            probe.resume()
        self.clock.start()

    def _count_reading(self) -> None:
        if self.reading_since is not None:
            now = time.perf_counter()
            self.probe_time_s += now - self.reading_since
            self.reading_since = now

    def read(self) -> list[dict[str, Any]]:
        """Wait for the device, and combine what all ranks measured since the last reading."""
        self.clock.read()
        self.reading_since = time.perf_counter()
        mine = {name: values for probe in self.probes for name, values in probe.windows().items()}
        flat = [value for values in mine.values() for value in values]
        per_rank = self._gather([*flat, *map(float, self.unlike)])
        rows, self.pending, self.unlike = self.pending, [], []
        for number, name in enumerate(mine):
            column = self.step_columns[name]
            for index, row in enumerate(rows):
                at = number * len(rows) + index
                row[name] = combine(column.ranks, [rank[at] for rank in per_rank])
        self._decide(rows, [any(ranks) for ranks in zip(*(rank[len(flat) :] for rank in per_rank), strict=True)])
        for probe in self.probes:
            probe.windows_decided([row["measured"] for row in rows])
        self.now = self._totals()
        self.measured += [row for row in rows if row["measured"]]
        if rows:
            times = [row["step_time_s"] for row in rows if row.get("step_time_s")]
            self.block = min(1000, max(1, round(BLOCK_S / statistics.median(times)))) if times else 50
        return rows

    def _decide(self, rows: list[dict[str, Any]], unlike: list[bool]) -> None:
        """Say of each row whether its window is measured. `unlike`: on any rank, so that all decide alike."""
        for row, one_of_its_kind in zip(rows, unlike, strict=True):
            warm = self.run_s >= self.warmup_s or self.windows_read >= self.most_by_time
            row["measured"] = row["measured"] and warm and not one_of_its_kind
            self.run_s += row.get("step_time_s") or 0.0
            self.windows_read += 1

    def epoch_end(self, facts: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """(the last rows of steps.csv, the row of epochs.csv without its evaluation)."""
        rows = self.read()
        for probe in self.probes:
            probe.epoch_end()
        self.now = self._totals()
        self._count_reading()
        self.reading_since = None
        span = Span(self._since(self.epoch_start), self.measured[self.epoch_rows :])
        epoch = {**facts, **{k: v for probe in self.probes for k, v in probe.derive(span).items()}}
        self.epochs.append(epoch)
        return rows, epoch

    def close(self) -> None:
        """Training is over: what the probes have running ends."""
        for probe in self.probes:
            probe.end()

    def trial(self) -> dict[str, Any]:
        """The probes' columns of trials.csv, from all that was combined so far. Involves no other rank."""
        span = Span(self._since(self.start), self.measured, self.epochs)
        values: dict[str, Cell] = {**span.totals}
        for probe in self.probes:
            values.update(probe.derive(span))
        known = {column.name: column for module in probe_modules() for column in getattr(module, "TRIALS", ())}
        return {name: typed(known[name], value) for name, value in values.items() if name in known}

    def _gather(self, values: Sequence[Value]) -> list[list[Value]]:
        """Every rank's copy of these numbers."""
        numbers = [NONE if value is None else float(value) for value in values]
        return [[None if value == NONE else value for value in rank] for rank in self.gather(numbers)]

    def _totals(self) -> list[dict[str, Value]]:
        """Every rank's totals."""
        totals = {name: value for probe in self.probes for name, value in probe.totals().items()}
        self._count_reading()
        totals["probe_time_s"] = self.probe_time_s
        return [dict(zip(totals, rank, strict=True)) for rank in self._gather(list(totals.values()))]

    def _since(self, before: list[dict[str, Value]]) -> dict[str, Value]:
        """The totals of all ranks since then: each rank's own difference first, then the ranks combined."""
        result = {}
        for name, (over_time, over_ranks) in self.over.items():
            pairs = [(now[name], then[name]) for now, then in zip(self.now, before, strict=True)]
            values = [difference(*pair) if over_time == "counter" else pair[0] for pair in pairs]
            result[name] = combine(over_ranks, values)
        return result


def typed(column: Column, value: Cell) -> Cell:
    """Counts and bytes are whole numbers."""
    return int(value) if column.type == "int" and value is not None else value
