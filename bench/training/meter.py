"""Runs the probes inside the training loop, and combines what the ranks measured.

Windows are read in blocks of about a second. Reading a block waits for the device once and takes two collectives, while
no window is timed. Then all ranks decide alike which windows of the block are measured. The time that reading takes is
the meter's own total, probe_time_s.
"""

from __future__ import annotations

import math
import statistics
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from bench.column import Column
from bench.instruments.clock import clock_for
from bench.instruments.turns import Turns
from bench.machine import compiler
from bench.probes import Aggregation, Cell, Probe, Span, Value, combine, difference, probe_modules
from bench.record.columns import columns
from bench.training.ranks import own_times, rank_columns
from bench.training.windows import Window

Gather = Callable[[list[float]], list[list[float]]]
BLOCK_S = 1.0
# On a GPU the warm-up also lasts this long, in which its clocks rise and kernels are loaded, but takes at most half of
# the windows: a short trial must have some that are measured.
WARMUP_S = 1.0
OWN_TOTALS: dict[str, Aggregation] = {"probe_time_s": ("counter", "max")}
NONE = -math.inf  # stands for None in a collective; not nan or inf, which a loss can be


class Meter:
    """The probes of one rank. `gather` takes this rank's numbers and returns every rank's, rank 0 first.

    `windows`: how many there will be. These windows are run but not measured: the first `warmup_windows`; if that is
    not 0, also those of a GPU's first second, and the first one with each size of micro-batch; and always those in
    which torch compiled.
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
        self.most_warmup_by_time = windows / 2
        self.run_s, self.windows_read = 0.0, 0
        self.sizes: set[int] = set()  # micro-batch sizes so far
        self.compiled = compiler.steps_taken()
        self.one_off: list[bool] = []  # for each pending window: see _is_one_off
        self.step_columns = {column.name: column for column in columns("steps")}
        self.aggregations = {name: how for probe in probes for name, how in probe.TOTALS.items()} | OWN_TOTALS
        self.reading_since: float | None = None
        self.probe_time_s = 0.0
        self.pending: list[dict[str, Any]] = []
        self.block = 1
        self.window_s: float | None = None  # the median of the windows that were read last
        self.turns: Turns | None = None
        self.windows_run = 0
        self.measured: list[dict[str, Any]] = []
        self.own_times = array("d")  # of each measured window, the own time of each rank
        self.epochs: list[dict[str, Any]] = []
        self.device, self.clock = device, clock_for(device)
        for probe in probes:
            probe.clock = self.clock
            probe.begin(device)
        # Totals of all ranks at the start, at the last reading, and at the start of the epoch.
        self.start = self.now = self.epoch_start = self._totals()

    def take_turns(self, turns: Turns) -> None:
        """From now on, a block is a turn: when it has been read, the others train (see bench.instruments.turns)."""
        self.turns, self.block = turns, turns.windows
        for probe in self.probes:
            probe.meet(turns.pids)
        self.now = self._totals()

    def epoch_begin(self) -> None:
        """The first micro-batch of an epoch has been fetched."""
        self.epoch_start, self.epoch_rows = self.now, len(self.measured)
        self.reading_since = time.perf_counter()
        for probe in self.probes:
            probe.epoch_begin()
        self._start_clocks()

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches. The first one is fetched off the clock; the wait for each of the others is measured."""
        batch = next(batches, None)
        self.epoch_begin()
        while batch is not None:
            yield batch
            start_s = time.perf_counter()
            batch = next(batches, None)
            waited_s = time.perf_counter() - start_s
            for probe in self.probes:
                probe.batch_fetched(waited_s)

    def window_begin(self, window: Window) -> None:
        """The window's first micro-batch is about to go forward."""
        self.compiled = compiler.steps_taken()
        warmup_left = max(0, self.warmup_windows - self.windows_run)
        for probe in self.probes:
            probe.window_begin(window.images, warmup_left)

    def communication_begin(self, loss_sum: torch.Tensor) -> None:
        """The window's last micro-batch is about to go backward, which shares the gradients."""
        for probe in self.probes:
            probe.communication_begin(loss_sum)

    def communication_end(self) -> None:
        """The window's gradients are shared."""
        for probe in self.probes:
            probe.communication_end()

    def micro_batch_end(self, loss_sum: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """A micro-batch has gone forward and backward."""
        for probe in self.probes:
            probe.micro_batch_end(loss_sum, logits, labels)

    def window_end(self, window: Window, values: dict[str, Any]) -> list[dict[str, Any]]:
        """The optimizer has stepped. Returns the block's rows of steps.csv when it is full, else none.

        The rows are the same on every rank. `values`: further columns of this window. After rows, call `resume`.
        """
        measured = self.windows_run >= self.warmup_windows
        self.windows_run += 1
        for probe in self.probes:
            probe.window_end(window.images, measured)
        self.clock.mark()
        self.one_off.append(self._is_one_off(window))
        turn = self.turns.number if self.turns is not None else None
        row = {"window": window.index, "images": window.images, "measured": measured, "turn": turn}
        self.pending.append({**values, **row})
        if len(self.pending) < self.block:
            return []
        return self.read()

    def _is_one_off(self, window: Window) -> bool:
        """Whether the window did work that later ones do not repeat: its micro-batch size is new, or torch compiled.

        For a new size, libraries choose algorithms and load kernels.
        """
        sizes = {stop - start for start, stop in window.passes}
        new_size = bool(self.warmup_windows) and not sizes <= self.sizes
        self.sizes |= sizes
        return new_size or compiler.steps_taken() > self.compiled

    def resume(self) -> None:
        """The rows have been written. Waits for the rank that wrote them, or the next window would wait for it."""
        if self.turns is not None:
            self._hand_over(self.turns)
        self.gather([0.0])
        self._start_clocks()

    def _hand_over(self, turns: Turns) -> None:
        """Wait while the others train, which is no time of this trial."""
        self._count_reading()
        for probe in self.probes:
            probe.pause()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # also of copies in other streams
        turns.hand_over(self.window_s)
        self.block = turns.windows
        self.reading_since = time.perf_counter()

    def _start_clocks(self) -> None:
        """Start the clocks. Nothing is left to read."""
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
        # One collective for all: first each column's values, window by window, then the windows' flags.
        flat = [value for values in mine.values() for value in values]
        per_rank = self._gather([*flat, *map(float, self.one_off)])
        rows, self.pending, self.one_off = self.pending, [], []
        size = len(rows)
        by_rank = [{name: rank[n * size : (n + 1) * size] for n, name in enumerate(mine)} for rank in per_rank]
        for name in mine:
            of_windows = zip(*(rank[name] for rank in by_rank), strict=True)
            for row, values in zip(rows, of_windows, strict=True):
                row[name] = combine(self.step_columns[name].ranks, values)
        self._decide(rows, [any(ranks) for ranks in zip(*(rank[len(flat) :] for rank in per_rank), strict=True)])
        for probe in self.probes:
            probe.windows_decided([row["measured"] for row in rows])
        self.now = self._totals()
        for row, own in zip(rows, own_times(by_rank, size), strict=True):
            self.own_times.extend(own if row["measured"] else ())
        self.measured += [row for row in rows if row["measured"]]
        if rows:
            times = [row["step_time_s"] for row in rows if row.get("step_time_s")]
            # The median, so that one slow window does not make the next block short.
            self.window_s = statistics.median(times) if times else None
            if self.turns is None:
                self.block = min(1000, max(1, round(BLOCK_S / self.window_s))) if self.window_s else 50
        return rows

    def _decide(self, rows: list[dict[str, Any]], one_off: list[bool]) -> None:
        """Decide for each row whether its window is measured. `one_off`: on any rank, so that all decide alike."""
        for row, is_one_off in zip(rows, one_off, strict=True):
            warm = self.run_s >= self.warmup_s or self.windows_read >= self.most_warmup_by_time
            row["measured"] = row["measured"] and warm and not is_one_off
            self.run_s += row.get("step_time_s") or 0.0
            self.windows_read += 1

    def epoch_end(self, values: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """(the last rows of steps.csv, the row of epochs.csv without its evaluation). `values`: further columns."""
        rows = self.read()
        for probe in self.probes:
            probe.epoch_end()
        self.now = self._totals()
        self._count_reading()
        self.reading_since = None
        span = Span(self._since(self.epoch_start), self.measured[self.epoch_rows :])
        epoch = {**values, **{k: v for probe in self.probes for k, v in probe.derive(span).items()}}
        self.epochs.append(epoch)
        return rows, epoch

    def close(self) -> None:
        """Training is over. Ends the probes' threads."""
        for probe in self.probes:
            probe.end()

    def trial(self) -> dict[str, Any]:
        """The probes' columns of trials.csv as of the last reading. Involves no other rank."""
        span = Span(self._since(self.start), self.measured, self.epochs)
        values: dict[str, Cell] = {**span.totals}
        for probe in self.probes:
            values.update(probe.derive(span))
        by_name = {column.name: column for module in probe_modules() for column in getattr(module, "TRIALS", ())}
        return {name: typed(by_name[name], value) for name, value in values.items() if name in by_name}

    def ranks(self) -> list[dict[str, Any]]:
        """Each rank's measured columns of ranks.csv as of the last reading. Involves no other rank."""
        return rank_columns(self.measured, self.own_times, self.start, self.now)

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
        """The totals since then. Each rank's difference is taken first, then the ranks are combined.

        The other order is wrong for a maximum: if each epoch has another slowest rank, the difference of the maxima is
        less than what the slowest rank took.
        """
        result = {}
        for name, (over_time, over_ranks) in self.aggregations.items():
            pairs = [(now[name], then[name]) for now, then in zip(self.now, before, strict=True)]
            values = [difference(*pair) if over_time == "counter" else pair[0] for pair in pairs]
            result[name] = combine(over_ranks, values)
        return result


def typed(column: Column, value: Cell) -> Cell:
    """The value in the column's type. Collectives turn counts and bytes into floats."""
    return int(value) if column.type == "int" and value is not None else value
