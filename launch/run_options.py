"""How a sweep is run: in which order, under which time limits, on which machines. None of it changes a trial."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from bench.errors import UsageError
from bench.trial import option


@dataclass(frozen=True)
class RunOptions:
    """The options of `python -m launch run` that only the launcher needs."""

    repeats: int = 1
    """Run every trial this many times, as repeat 0, 1, ..."""
    order: Literal["interleaved", "sequential"] = "interleaved"
    """interleaved: all trials once, then all once more in reverse (A B B A), so that a drift of the machine affects all
    alike; sequential: all repeats of a trial, then the next."""
    dry_run: bool = False
    """Print the trials, their commands and the time they may take; start nothing."""
    timeout: float | None = None
    """Seconds that a trial may take in all."""
    stall_timeout: float | None = 1800.0
    """Seconds that a trial may take without progress, as when a collective hangs."""
    retry_failed: bool = False
    """With --resume, also run the trials again that failed."""
    fail_fast: bool = False
    """Start no other trial once one has failed."""
    parallel: int = 1
    """Trials that run side by side, each on GPUs of its own."""
    cold: bool = False
    """Start every trial by a fresh `accelerate launch`, in place of a fork of a process that has done the imports."""
    machine_rank: int = 0
    """Number of this machine, if --machines is above 1; machine 0 writes the rows."""
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
