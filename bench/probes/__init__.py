"""Probes: what measures one quantity. One file each, found by its name; none imports torch at import.

A probe module has a class `Probe` and lists of columns (STEPS, EPOCHS, TRIALS), and its class answers

- `windows()`: for each window since the last call, what this rank measured. Combined over ranks as its column says.
- `counted(measured)`: which of those windows count, after which `totals()` is asked for.
- `totals()`: what this rank has counted since the start; each rank's share of an epoch is a difference of two such
  answers. Combined over ranks by TOTALS: name -> (how over time, how over ranks).
- `derive(span)`: from the combined totals and measured windows of an epoch or of the trial, the values of its columns;
  text too, which otherwise does not travel between ranks.

A module whose columns depend on the machine says in `unreadable()` which of them cannot be read here, and why not.

None means that there is no such measurement, and stays None.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import torch

    from bench.instruments.clock import Clock

Value = float | None
Cell = float | str | None
Aggregation = tuple[Literal["counter", "peak"], Literal["max", "sum"]]

COMBINE: dict[str, Callable[[Sequence[float]], float]] = {"max": max, "sum": sum}


@dataclass(frozen=True)
class Span:
    """What a probe derives its columns from: an epoch, or (with the rows of its epochs) the trial."""

    totals: Mapping[str, Value]
    windows: Sequence[Mapping[str, Any]]
    epochs: Sequence[Mapping[str, Any]] | None = None


class Probe:
    """The hooks that the training loop calls on every rank, in this order; each does nothing until overridden.

    `clock` is one for all probes, started before a window follows and marked when it has ended: its `spans` are the
    seconds of each window that `windows()` is asked for.
    """

    clock: Clock
    TOTALS: ClassVar[dict[str, Aggregation]] = {}

    def begin(self, device: torch.device) -> None:
        """Training is about to start on this device."""

    def epoch_begin(self) -> None:
        """The epoch's first micro-batch has been fetched. No clock runs: what there is to read may be read."""

    def resume(self) -> None:
        """Windows follow: the epoch begins, or goes on after the probes were read. Reads nothing."""

    def batch_fetched(self, seconds: float) -> None:
        """The loop waited this long for a micro-batch."""

    def window_begin(self, images: int, warmup_left: int) -> None:
        """A window of `images` images of all ranks begins; so many warm-up windows are left, this one among them."""

    def communication_begin(self, loss_sum: torch.Tensor) -> None:
        """The window's last micro-batch, of this loss (), goes backward, and its gradients will be shared."""

    def communication_end(self) -> None:
        """The window's gradients are there, those of all ranks."""

    def micro_batch_end(self, loss_sum: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """A micro-batch went forward and backward: summed loss (), logits (N, classes) and labels (N,)."""

    def window_end(self, images: int, measured: bool) -> None:
        """The optimizer has stepped on a window of `images` images of all ranks.

        `measured`: it is none of `warmup_windows`; whether it counts in the end, `windows_decided` says.
        """

    def epoch_end(self) -> None:
        """The epoch's last window has ended, and the device is idle."""

    def windows(self) -> dict[str, list[Value]]:
        """Column -> a value for each window since the last call."""
        return {}

    def windows_decided(self, measured: Sequence[bool]) -> None:
        """Whether each of those windows is measured, the same on all ranks."""

    def totals(self) -> dict[str, Value]:
        """Each name in TOTALS -> this rank's count since the start, or its peak so far."""
        return {}

    def derive(self, span: Span) -> Mapping[str, Cell]:
        """Column -> value, for this span."""
        return {}

    def end(self) -> None:
        """Training is over, well or not; nothing more is read."""


def combine(how: str, values: Sequence[Value]) -> Value:
    """One value for all ranks; None as soon as one rank has none."""
    known = [value for value in values if value is not None]
    return COMBINE[how](known) if len(known) == len(values) and values else None


def difference(after: Value, before: Value) -> Value:
    """What a counter has gained, or None where it does not count."""
    return after - before if after is not None and before is not None else None


def ratio(numerator: Value, denominator: Value) -> Value:
    """Their quotient, or None where there is none."""
    return numerator / denominator if numerator is not None and denominator else None


def probe_modules() -> list[Any]:
    """The probe modules of this folder, sorted by name."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}") for name in found]
