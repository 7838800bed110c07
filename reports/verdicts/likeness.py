"""Do rows agree in the columns that bench/column.py keeps apart?

They do if no such column has two known values. An empty cell is unknown, and never makes a difference: the row is older
than the column, or its machine has no such thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bench.record.columns import kept_apart
from reports.tables.summary import Row

IDENTITY = kept_apart("identity")  # columns without which a machine is not known


def values(rows: Iterable[Row], name: str) -> set[Any]:
    """The known values of a column."""
    return {row[name] for row in rows} - {None}


def unlike(rows: Sequence[Row], names: Iterable[str]) -> list[str]:
    """Those of these columns in which two rows have unlike values."""
    return [name for name in names if len(values(rows, name)) > 1]


def unidentified(rows: Sequence[Row]) -> list[str]:
    """The columns of the role "identity" that are empty in one of the rows."""
    return [name for name in IDENTITY if any(row[name] is None for row in rows)]


def half_known(base: Sequence[Row], head: Sequence[Row], names: Iterable[str]) -> list[str]:
    """Those of these columns that one side has values in and the other has none."""
    return [name for name in names if bool(values(base, name)) != bool(values(head, name))]


def listed(found: Iterable[Any]) -> str:
    """Values as text: 1 and 2; nothing."""
    return " and ".join(sorted("nothing" if value is None else str(value) for value in found)) or "nothing"
