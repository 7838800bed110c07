"""Do rows agree in the columns that bench/column.py keeps apart?

They do if no such column has two known values. An empty cell is unknown, and never makes a difference: the row is older
than the column, or its machine has no such thing.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.record.columns import kept_apart
from reports.tables.summary import Row

VARIABLES = ("variables", "group_variables")  # columns that hold several environment variables
NOT_SET = "not set"
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


def against(base: Sequence[Row], head: Sequence[Row], name: str) -> str:
    """In what two sides differ in a column: torch 2.9.0 against 2.14.1. Of VARIABLES, each variable by its own name."""
    sides = (values(base, name), values(head, name))
    if name not in VARIABLES:
        return f"{name} {listed(sides[0])} against {listed(sides[1])}"
    cells = [[variables(text) for text in side] for side in sides]
    names = sorted({each for side in cells for cell in side for each in cell})
    found = {each: [{cell.get(each, NOT_SET) for cell in side} for side in cells] for each in names}
    unlike = {each: map(listed, (one, other)) for each, (one, other) in found.items() if len(one | other) > 1}
    return "; ".join(f"{each} {' against '.join(both)}" for each, both in unlike.items())


def variables(cell: str) -> Mapping[str, str]:
    """Name -> value of the variables in a cell of VARIABLES: ATEN_CPU_CAPABILITY=avx2 PYTHONMALLOC=malloc.

    Where the ranks of a group differ, or somebody changed the file, the cell is one value by itself.
    """
    try:
        words = shlex.split(cell)
    except ValueError:  # a quote without its other
        words = [cell]
    if words == ["none"]:
        return {}
    pairs = [word.partition("=") for word in words]
    return {name: value for name, _, value in pairs} if all(sign for _, sign, _ in pairs) else {"variables": cell}


def listed(found: Iterable[Any]) -> str:
    """Values as text: 1 and 2; nothing."""
    return " and ".join(sorted("nothing" if value is None else str(value) for value in found)) or "nothing"
