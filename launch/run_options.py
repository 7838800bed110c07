"""How a sweep is conducted: in which order, under which time limits, on which machines. None of it changes a trial."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from bench.errors import UsageError
from bench.trial import option


@dataclass(frozen=True)
class RunOptions:
    """The options of `python -m launch run` that are neither a trial's nor a process's."""

    repeats: int = 1
    """Run every trial so many times, as repeat 0, 1, ..."""
    order: Literal["interleaved", "sequential"] = "interleaved"
    """interleaved: all trials once, then all once more in reverse (A B B A), so that a drift of the machine lands on
    none; sequential: all repeats of a trial, then the next."""
    dry_run: bool = False
    """Print the trials, their commands and what time they may take; start nothing."""
    timeout: float | None = None
    """Seconds that a trial may take in all."""
    stall_timeout: float | None = 1800.0
    """Seconds that a trial may take without progress, as when a collective hangs."""
    retry_failed: bool = False
    """With --resume, run those again too that have ended otherwise than well."""
    fail_fast: bool = False
    """Begin no other trial once one has ended otherwise than well."""
    parallel: int = 1
    """Trials that run side by side, each on GPUs of its own."""
    cold: bool = False
    """Start every trial by a fresh `accelerate launch`, not from a process that has its imports."""
    machine_rank: int = 0
    """Number of this machine where --machines are several; machine 0 keeps the record."""
    rendezvous: str = ""
    """HOST:PORT of machine 0, at which the others find it; the port after it is used as well."""

    join_timeout: float = 300.0
    """Seconds that the machines wait for each other at the start."""

    def __post_init__(self) -> None:
        for name in ("repeats", "parallel"):
            if getattr(self, name) < 1:
                raise UsageError(f"{option(name)} is {getattr(self, name)}; give 1 or more")
        for name in ("timeout", "stall_timeout", "join_timeout"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{option(name)} is {value}; give a positive number of seconds, or None")
        if self.machine_rank < 0:
            raise UsageError(f"--machine-rank is {self.machine_rank}; give 0 or more")


FIELDS = frozenset(field.name for field in dataclasses.fields(RunOptions))
