"""Text as columns of the types that bench.record.columns gives them; what is no such value is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.column import Column
from bench.record import cells
from bench.record.cells import BOOLS, Unread
from bench.record.columns import OLDER

CONTROL = r"[\x00-\x1f\x7f-\x9f]"  # a terminal would obey them
# Python's strings, so that results are the same whether pyarrow is installed or not.
TEXT = pd.StringDtype("python")
DTYPES: dict[str, Any] = {"str": TEXT, "int": "Int64", "float": "Float64", "bool": "boolean"}
UNREADABLE = "unreadable"
"""Column that a table with such cells has besides: which cells of a row cannot be read. It keeps the row apart."""


def typed_table(rows: list[dict[str, str]], wanted: Sequence[Column], file: str) -> tuple[pd.DataFrame, list[Unread]]:
    """These rows in their columns' types, and the cells that cannot be read, which the column UNREADABLE names."""
    text = pd.DataFrame(rows, dtype=TEXT)
    found: dict[str, pd.Series] = {}
    unread: list[Unread] = []
    apart = pd.Series("", index=text.index, dtype=object)
    for column in wanted:
        found[column.name], bad = typed(text, column)
        unread += unread_in(file, column.name, bad)
        if len(bad):
            apart[bad.index] += [f", {column.name} {cells.shortened(value)}" for value in bad]
    if apart.any():
        found[UNREADABLE] = apart.str.removeprefix(", ").where(apart != "").astype(TEXT)
    return pd.DataFrame(found), unread


def numbers(text: pd.DataFrame, name: str) -> tuple[pd.Series, pd.Series]:
    """(a column as floats, NaN where it is missing or infinite; its cells that are there and no number)."""
    if name not in text:
        return pd.Series(float("nan"), index=text.index), pd.Series(dtype=TEXT)
    found = pd.to_numeric(text[name], errors="coerce").astype(float)
    failed = text[name][found.isna()].dropna()
    bad = failed[[not (cells.NUMBER.fullmatch(each) or cells.NOT_FINITE.fullmatch(each)) for each in failed]]
    return found.where(found.abs() < float("inf")), bad


def unread_in(file: str, name: str, bad: pd.Series) -> list[Unread]:
    """These cells of a column, which cannot be read, as one; none if there are none."""
    return [Unread(file, name, str(bad.iloc[0]), bad.nunique() > 1, len(bad))] if len(bad) else []


def typed(text: pd.DataFrame, column: Column) -> tuple[pd.Series, pd.Series]:
    """(a column in its type, with this version's names of values; its cells that are there and cannot be read)."""
    name = column.name
    if name not in text:
        return pd.Series(pd.NA, index=text.index, dtype=DTYPES[column.type]), pd.Series(dtype=TEXT)
    texts = text[name].replace("", pd.NA)
    if column.type == "float":
        floats, bad = numbers(pd.DataFrame({name: texts}), name)
        return floats.astype("Float64"), bad
    spelled = {each: cells.spelled(each, column) for each in texts.dropna().unique()}
    found = texts.map(spelled, na_action="ignore")
    bad = texts[texts.notna() & found.isna()]
    if column.type == "bool":
        return found.map({"true": True, "false": False}).astype("boolean"), bad
    if column.type == "int":
        return pd.to_numeric(found.astype(TEXT), errors="coerce").astype("Int64"), bad
    older = {each: OLDER[name].get(BOOLS.get(each, each), each) for each in spelled} if name in OLDER else {}
    return found.astype(TEXT).replace(older).str.replace(CONTROL, "?", regex=True), bad
