"""Text as columns of the types that bench.record.columns gives them; what is no such value is named."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.column import Column
from bench.record import cells
from bench.record.cells import BOOLS, Unread
from bench.record.columns import OLDER

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a terminal would obey them
# Python's strings, so that results are the same whether pyarrow is installed or not.
TEXT = pd.StringDtype("python")
DTYPES: dict[str, Any] = {"str": TEXT, "int": "Int64", "float": "Float64", "bool": "boolean"}
UNREADABLE = "unreadable"
"""Column that a table with such cells has besides: which cells of a row cannot be read. It keeps the row apart."""


def typed_table(rows: list[dict[str, str]], wanted: Sequence[Column], file: str) -> tuple[pd.DataFrame, list[Unread]]:
    """These rows in their columns' types, and the cells that cannot be read, which the column UNREADABLE names.

    Works on lists: pandas takes some ms for each step with each column, and trials.csv has some 180 columns.
    """
    found: dict[str, Any] = {}
    unread: list[Unread] = []
    apart: list[list[str]] = [[] for _ in rows]
    for column in wanted:
        texts = [row.get(column.name, "") for row in rows]
        values = {text: typed(text, column) for text in set(texts)}
        found[column.name] = pd.array([values[text] for text in texts], dtype=DTYPES[column.type])
        if bad := {text for text, value in values.items() if value is None and not is_missing(text, column)}:
            for named, text in zip(apart, texts, strict=True):
                named += [f"{column.name} {cells.shortened(text)}"] if text in bad else []
            unread += unread_in(file, column.name, [text for text in texts if text in bad])
    if any(apart):
        found[UNREADABLE] = pd.array([", ".join(named) or None for named in apart], dtype=TEXT)
    return pd.DataFrame(found), unread


def typed(text: str, column: Column) -> Any:
    """A cell in its column's type, with this version's names of values; None if it is missing or cannot be read."""
    found = cells.spelled(text, column)
    if not found:
        return None
    if column.type == "float":
        value = float(found)
        return value if math.isfinite(value) else None
    if column.type == "bool":
        return found == "true"
    if column.type == "int":
        return int(found)
    return CONTROL.sub("?", OLDER.get(column.name, {}).get(BOOLS.get(found, found), found))


def is_missing(text: str, column: Column) -> bool:
    """Whether nothing was measured: the cell is empty, or holds what is measured and no number."""
    return not text or (column.type == "float" and cells.spelled(text, column) is not None)


def numbers(text: pd.DataFrame, name: str) -> tuple[pd.Series, list[str]]:
    """(a column as floats, NaN where it is missing or infinite; its cells that are there and no number).

    By pandas alone: a column of steps.csv may have millions of cells.
    """
    if name not in text:
        return pd.Series(float("nan"), index=text.index), []
    found = pd.to_numeric(text[name], errors="coerce").astype(float)
    joined = "".join(text[name].to_numpy(na_value=""))
    if joined.split() != [joined]:  # somewhere is a space, which pandas passes over and `typed` does not
        found = found.mask((text[name].str.strip() != text[name]).fillna(False).astype(bool))
    failed = text[name][found.isna()].dropna()
    bad = [each for each in failed if not (cells.NUMBER.fullmatch(each) or cells.NOT_FINITE.fullmatch(each))]
    return found.where(found.abs() < float("inf")), bad


def unread_in(file: str, name: str, bad: Sequence[str]) -> list[Unread]:
    """These cells of a column, which cannot be read, as one; none if there are none."""
    return [Unread(file, name, bad[0], len(set(bad)) > 1, len(bad))] if bad else []
