"""One column of a CSV file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """One column: its name, type, unit, how ranks are combined ("": not measured by rank), and one sentence."""

    name: str
    type: Literal["str", "int", "float", "bool"]
    unit: str
    ranks: Literal["", "max", "sum", "rank 0"]
    text: str
