"""What the probes cost: one training run in which they are switched on and off in short turns.

The cost is far below what single runs on a shared machine differ by, so it is had from many pairs of neighbouring
turns. The same run also times the calls into the Meter alone: a number with less noise, but blind to what the calls
leave behind for the next step, such as a cold cache. The thread that samples a GPU or a Jetson runs in both kinds of
turns; what one of its samples takes is in test_perf_step.py.
"""

from __future__ import annotations

import os
import random
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from bench.record.run_folder import RunFolder
from bench.training.loop import train_epoch
from bench.training.meter import Meter
from bench.training.windows import Window, epoch_windows
from bench.trial import Trial
from bench.worker import all_probes

from .contenders import Ours


@dataclass(frozen=True)
class Turn:
    """Neighbouring windows, the probes on or off: the mean time of one, and of that within the Meter's own calls."""

    on: bool
    windows: int
    window_s: float
    inside_s: float


class Switched(Meter):
    """A Meter that measures in two turns of four: on, off, off, on.

    A turn with the probes on ends where they are read out, so that reading and writing rows count as often as they
    happen; a turn with them off is as long as the last one on.
    """

    def __init__(self, *values: Any, write: Callable[[list[dict[str, Any]]], None]) -> None:
        super().__init__(*values)
        self.all_probes, self.write = self.probes, write
        self.timed_turns: list[Turn] = []
        self.on, self.length = True, 1
        self._begin()

    def window_begin(self, window: Window) -> None:
        self._timed(super().window_begin, window)

    def communication_begin(self, loss_sum: torch.Tensor) -> None:
        """What is called back in the backward pass is in the step's time alone."""
        self._timed(super().communication_begin, loss_sum)

    def communication_end(self) -> None:
        self._timed(super().communication_end)

    def micro_batch_end(self, loss_sum: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self._timed(super().micro_batch_end, loss_sum, logits, labels)

    def _timed(self, call: Callable[..., None], *words: Any) -> None:
        if self.on:
            began = time.perf_counter()
            call(*words)
            self.inside += time.perf_counter() - began

    def window_end(self, window: Window, facts: dict[str, Any]) -> list[dict[str, Any]]:
        """No rows for the loop to write: that would fall into the next turn."""
        self.windows += 1
        rows = []
        if self.on:
            began = time.perf_counter()
            rows = super().window_end(window, facts)
            if rows:
                self.write(rows)
            self.inside += time.perf_counter() - began
        if rows or (not self.on and self.windows == self.length):
            self._turn()
        return []

    def epoch_end(self, facts: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        self.probes = self.all_probes
        return super().epoch_end(facts)

    def _turn(self) -> None:
        seconds = time.perf_counter() - self.began
        self.timed_turns.append(Turn(self.on, self.windows, seconds / self.windows, self.inside / self.windows))
        if self.on:
            self.length = self.windows
        self.on = len(self.timed_turns) % 4 in (0, 3)
        self.probes = self.all_probes if self.on else []
        self.resume()
        self._begin()

    def _begin(self) -> None:
        self.windows, self.inside, self.began = 0, 0.0, time.perf_counter()


def turns(trial: Trial, wanted: int) -> list[Turn]:
    """So many turns of a training of this trial, as its rank 0 sees them; without warm-up windows."""
    if trial.processes == 1:
        return _turns(trial, wanted)
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = range(trial.processes)
    group = [context.Process(target=_rank, args=(trial, wanted, rank, port, theirs)) for rank in ranks]
    for process in group:
        process.start()
    theirs.close()
    found = ours.recv()
    for process in group:
        process.join()
    return found


def _rank(trial: Trial, wanted: int, rank: int, port: int, answer: Connection) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(trial.processes)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(trial.processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    found = _turns(trial, wanted)
    torch.distributed.destroy_process_group()
    if rank == 0:
        answer.send(found)


def _turns(trial: Trial, wanted: int) -> list[Turn]:
    with tempfile.TemporaryDirectory() as folder:
        loop, records = Ours(trial, 4096), RunFolder(Path(folder))
        records.prepare()
        facts = {"launch_id": "perf", "epoch": 0}
        meter = Switched(
            all_probes(),
            loop.meter.gather,
            0,
            torch.device("cpu"),
            write=lambda rows: records.append("steps", [facts | row for row in rows]),
        )
        # One long epoch over the same few images, because beginning an epoch would weigh on a turn.
        windows = list(epoch_windows(4096, trial.micro_batch, 1, trial.processes, loop.rank)) * wanted
        batches = loop.feed.train(0, [a_pass for window in windows for a_pass in window.passes])
        enough = takewhile(lambda _: len(meter.timed_turns) < wanted, windows)
        train_epoch(loop.training, enough, batches, meter, lambda _: trial.lr, lambda rows: None)
    return meter.timed_turns


def pairs(turns: Sequence[Turn]) -> list[tuple[Turn, Turn]]:
    """Neighbours as (on, off)."""
    couples = zip(turns[::2], turns[1::2], strict=False)
    return [(first, second) if first.on else (second, first) for first, second in couples]


def median_interval(values: Sequence[float], draws: int = 2000) -> tuple[float, float, float]:
    """(median, and the ends of its 95% interval by bootstrap)."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(draws))
    return statistics.median(values), medians[int(0.025 * draws)], medians[int(0.975 * draws)]
