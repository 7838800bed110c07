"""What memory there is for tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from bench.trial import UsageError

SIZE = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]i?B|B|)", re.IGNORECASE)
UNITS = {"": 1, "b": 1} | {f"{p}b": 1000**n for n, p in enumerate("kmgt", 1)}
UNITS |= {f"{p}ib": 1024**n for n, p in enumerate("kmgt", 1)}


@dataclass(frozen=True)
class Budget:
    """Memory that the tensors of one process may take."""

    bytes: int


def size(text: str, option: str) -> int:
    """Bytes, rounded down: 600MiB, 7.4GiB, 1.5GB or 123456. UsageError: it is none."""
    said = SIZE.fullmatch(text.strip())
    if said is None:
        raise UsageError(f"{option} is {text!r}; give bytes such as 600MiB, 7.4GiB, 1.5GB or 123456")
    return int(Fraction(said[1]) * UNITS[said[2].lower()])


def budget(text: str, reserve: str | None, gpus: int) -> Budget:
    """What is left of this limit for tensors, the reserve taken off. UsageError: nothing, or it cannot be read."""
    left = size(text, "--memory-limit") - (size(reserve, "--reserve") if reserve is not None else 0)
    if left < 1:
        raise UsageError(f"--memory-limit is {text} and leaves nothing for tensors; give more, or a smaller --reserve")
    return Budget(left)
