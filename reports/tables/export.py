"""Writes a run's trials in the formats of other programs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from bench.errors import UsageError
from bench.record.columns import columns
from reports.markdown import escaped, row
from reports.tables.table import Sheet

INFINITE = (float("inf"), float("-inf"))


def markdown(sheets: Iterable[Sheet]) -> str:
    """These tables, with their notes."""
    parts = []
    for sheet in sheets:
        parts += [f"### {escaped(sheet.title)}", ""]
        parts += [row(list(map(escaped, heads(sheet)))), row(["---"] + ["---:"] * (len(sheet.heads) - 1))]
        parts += [row(list(map(escaped, line))) for line in lines(sheet)]
        parts += ["", *(f"{number}. {escaped(note)}" for number, note in enumerate(sheet.notes, start=1))]
        parts += ["", escaped(common(sheet)), "", escaped(sheet.machine), ""]
    return "\n".join(parts)


def latex(sheets: Iterable[Sheet]) -> str:
    r"""A tabular for each of these tables, for \usepackage{booktabs}; what stands beneath it is a comment."""
    parts = []
    for sheet in sheets:
        frame = pd.DataFrame(lines(sheet), columns=heads(sheet))
        style = frame.style.hide(axis="index").format(escape="latex").format_index(axis=1, escape="latex")
        form = "l" + "r" * (len(sheet.heads) - 1)
        about = [sheet.title, *(f"[{n}] {note}" for n, note in enumerate(sheet.notes, start=1)), common(sheet)]
        parts += [f"% {' '.join(text.split())}" for text in (*about, sheet.machine)]
        parts.append(style.to_latex(hrules=True, column_format=form))
    return "\n".join(parts)


def common(sheet: Sheet) -> str:
    """The settings that all rows share: lr 0.1, seed 0."""
    return ", ".join(f"{name} {value}" for name, value in sheet.common)


def heads(sheet: Sheet) -> list[str]:
    return [" ".join(head.split()) for head in sheet.heads]


def lines(sheet: Sheet) -> list[list[str]]:
    """The cells of each line; behind the arm stand the numbers of the line's notes."""
    noted = ("".join(f" [{mark + 1}]" for mark in marks) for marks in sheet.marks)
    return [[line[0] + marks, *line[1:]] for line, marks in zip(sheet.lines, noted, strict=True)]


def as_json(trials: pd.DataFrame) -> str:
    """An object with `columns` (type, unit and meaning of each) and `rows`; a missing value is null."""
    meanings = {c.name: {"type": c.type, "unit": c.unit, "meaning": c.text} for c in columns("trials")}
    finite = trials.astype(object).where(trials.notna() & ~trials.isin(INFINITE), None)
    rows = finite.to_dict("records")
    return json.dumps({"columns": meanings, "rows": rows}, indent=1, allow_nan=False) + "\n"


def parquet(trials: pd.DataFrame) -> bytes:
    """Typed columns, each with its unit and meaning as metadata. Raises UsageError if pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("export: parquet needs pyarrow; pip install -e '.[parquet]'") from error
    table = pyarrow.Table.from_pandas(trials, preserve_index=False)
    for index, column in enumerate(columns("trials")):
        field = table.schema.field(index).with_metadata({"unit": column.unit, "meaning": column.text})
        table = table.set_column(index, field, table.column(index))
    data = io.BytesIO()
    pyarrow.parquet.write_table(table, data)
    return data.getvalue()


# What takes the tables of `show`, and what takes every column of every launch.
OF_TABLES: Mapping[str, Callable[[Iterable[Sheet]], str]] = {"latex": latex, "markdown": markdown}
OF_COLUMNS: Mapping[str, Callable[[pd.DataFrame], str | bytes]] = {"json": as_json, "parquet": parquet}
