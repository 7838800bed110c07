"""Rows of a run folder as typed tables, whoever wrote them and whenever."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from bench.record import RunFolder, UsageError, columns

CONTROL = r"[\x00-\x1f\x7f-\x9f]"  # would be an order to the terminal
DTYPES = {"str": "string", "int": "Int64", "float": "Float64", "bool": "boolean"}


def trials(folder: Path) -> pd.DataFrame:
    """trials.csv, a column for each that this version knows; what an older one did not write is missing (NA).

    UsageError: there is no such file, or it is none of ours.
    """
    path = folder / "trials.csv"
    if not path.is_file():
        raise UsageError(f"no {path}; give the --out folder of a run")
    try:
        rows = RunFolder(folder).rows("trials")
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}; give the --out folder of a run") from error
    if rows and "launch_id" not in rows[0]:
        raise UsageError(f"{path} has no column launch_id, so no run wrote it; give the --out folder of a run")
    text = pd.DataFrame(rows, dtype="string")
    table = {column.name: _typed(text, column.name, column.type) for column in columns("trials")}
    return pd.DataFrame(table)


def _typed(text: pd.DataFrame, name: str, kind: str) -> pd.Series:
    """A column of text in its type; an empty cell, or one of another type, is missing."""
    if name not in text:
        return pd.Series(pd.NA, index=text.index, dtype=DTYPES[kind])
    cells = text[name].replace("", pd.NA)
    if kind == "str":
        return cells.str.replace(CONTROL, "?", regex=True)
    if kind == "bool":
        return cells.map({"true": True, "false": False}).astype("boolean")
    numbers = pd.to_numeric(cells, errors="coerce").astype("Float64")
    if kind == "int":
        numbers = numbers.where((numbers % 1 == 0) & (numbers.abs() < 2**53))
    return numbers.astype(DTYPES[kind])
