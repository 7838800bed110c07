"""What is measured? Each file here is a probe, which measures one quantity and is found by its name.

To add a probe is to add one file; docs/extending.md has a whole one. bench/column.py says what a column may say of
itself.

A probe has lists of columns (STEPS, EPOCHS, TRIALS) and a class `Probe`, whose hooks the training loop calls:

- `totals()`: what this rank has counted since the start, or its peak so far, for each name in TOTALS: name -> (how over
  time, how over ranks). A total of the name of a TRIALS column fills it. It is called about once a second
  and at the end; what needs more is sampled by a thread (bench.instruments.sampler.Sampler).
- `windows()`: for each window since the last call, what this rank measured. Combined over ranks as its column says.
- `windows_decided(measured)`: is told which of those windows count.
- `derive(span)`: from the combined totals and the measured windows of an epoch or of the trial, the values of the
  columns that are no totals; text too, which otherwise does not travel between ranks.

A probe whose columns depend on the machine says in `unreadable()` which of them cannot be read here, and why not. A
value of None means that there is no such measurement: the cell stays empty. No probe imports torch when it is imported.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench import discovery

if TYPE_CHECKING:
    import torch

    from bench.instruments.clock import Clock

Value = float | None
Cell = float | str | None
Aggregation = tuple[Literal["counter", "peak"], Literal["max", "sum"]]

COMBINE: dict[str, Callable[[Sequence[float]], float]] = {"max": max, "sum": sum, "median": statistics.median}


@dataclass(frozen=True)
class Span:
    """What a probe derives its columns from: an epoch, or the trial, with the rows of its `epochs`."""

    totals: Mapping[str, Value]
    windows: Sequence[Mapping[str, Any]]
    epochs: Sequence[Mapping[str, Any]] | None = None


class Probe:
    """The hooks that the training loop calls on every rank, in this order; a probe overrides those that it needs.

    All probes share `clock`. It is started before a window and marked at its end: `clock.spans` are the seconds of each
    window that `windows()` reports on.
    """

    clock: Clock
    partners: frozenset[int] = frozenset()  # process ids of the trials that this one takes turns with
    TOTALS: ClassVar[dict[str, Aggregation]] = {}

    def begin(self, device: torch.device) -> None:
        """Training is about to start on this device."""

    def epoch_begin(self) -> None:
        """The epoch's first micro-batch has been fetched. No clock runs, so that a probe may take its time."""

    def resume(self) -> None:
        """Windows follow: the epoch begins, or goes on after the probes were read. The clock is about to run."""

    def meet(self, partners: frozenset[int]) -> None:
        """The trial takes turns with these processes from now on. What was read of them before is not to count."""
        self.partners = partners

    def pause(self) -> None:
        """The probes were read, and another trial's turn follows. Then `resume` is called."""

    def batch_fetched(self, seconds: float) -> None:
        """The loop waited this long for a micro-batch."""

    def window_begin(self, images: int, warmup_left: int) -> None:
        """A window of `images` images of all ranks begins; `warmup_left` warm-up windows are left, with this one."""

    def communication_begin(self, loss_sum: torch.Tensor) -> None:
        """The backward pass of the window's last micro-batch, with this loss (), begins: it shares the gradients."""

    def communication_end(self) -> None:
        """The window's gradients are shared: each rank has the mean of all."""

    def micro_batch_end(self, loss_sum: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """A micro-batch went forward and backward: summed loss (), logits (N, classes) and labels (N,)."""

    def window_end(self, images: int, measured: bool) -> None:
        """The optimizer has stepped on a window of `images` images of all ranks.

        `measured` is False for the trial's `warmup_windows`. Other windows may be left out as well, which
        `windows_decided` says later.
        """

    def epoch_end(self) -> None:
        """The epoch's last window has ended, and the device is idle."""

    def windows(self) -> dict[str, list[Value]]:
        """Column -> a value for each window since the last call."""
        return {}

    def windows_decided(self, measured: Sequence[bool]) -> None:
        """Whether each window that `windows()` last reported on counts; the same on all ranks."""

    def totals(self) -> dict[str, Value]:
        """Each name in TOTALS -> this rank's count since the start, or its peak so far."""
        return {}

    def derive(self, span: Span) -> Mapping[str, Cell]:
        """Column -> value, for this span."""
        return {}

    def end(self) -> None:
        """Training is over, well or not: stop what runs in the background."""


def combine(how: str, values: Sequence[Value]) -> Value:
    """One value for all ranks; None if any rank has none."""
    known = [value for value in values if value is not None]
    return COMBINE[how](known) if len(known) == len(values) and values else None


def difference(after: Value, before: Value) -> Value:
    """The increase of a counter; None if either reading is missing."""
    return after - before if after is not None and before is not None else None


def ratio(numerator: Value, denominator: Value) -> Value:
    """The quotient; None if a number is missing or the denominator is 0."""
    return numerator / denominator if numerator is not None and denominator else None


def probe_modules() -> list[Any]:
    """The probe modules of this folder, sorted by name."""
    return discovery.load_all(__name__)
