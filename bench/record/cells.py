"""What does a cell hold, and what does a line, if another program has saved the file again? Imports no torch.

Spreadsheets and pandas write TRUE or True for true, 16.0 for 16, a byte-order mark, lines that end in CRLF, quotes,
semicolons with decimal commas, and empty columns and rows. Of that, whatever has one meaning is read, and `spelled` has
it as our own files do. A cell that is there and cannot be read is no empty cell: nobody may take a default for it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.column import Column

BOOLS = {"true": "true", "True": "true", "TRUE": "true", "false": "false", "False": "false", "FALSE": "false"}
# An exponent would mean that a spreadsheet has rounded it.
WHOLE = re.compile(r"([+-]?\d+)(?:\.0*)?", re.ASCII)
LARGEST_WHOLE = 2**53  # from here on not every integer is a float
FRACTION = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
NUMBER = re.compile(FRACTION, re.ASCII)
# Forms of columns of text (see bench.column.Column).
FRACTIONS, INTEGERS = f"{FRACTION}( {FRACTION})*", r"[+-]?\d+( [+-]?\d+)*"
NOT_FINITE = re.compile(
    r"[+-]?(nan|inf|infinity)", re.IGNORECASE | re.ASCII
)  # as Python writes it: measured, and no number
# What spreadsheets make of a text that looks like a number or a formula to them: 1.23E+11, ###, #NAME?.
MANGLED = re.compile(r"#+|#(N/A|NAME\?|VALUE!|REF!|NUM!|NULL!|DIV/0!)|[+-]?\d+([.,]\d+)?E[+-]\d+", re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?", re.ASCII)
# 1,234 and, beside semicolons, 1.234: a thousand or a decimal fraction.
AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}", re.ASCII)
OTHERS_COLUMN = re.compile(r"|Unnamed: \d+")  # the index of pandas, or an empty column
BYTE_ORDER_MARK = "\ufeff"


def spelled(text: str, column: Column) -> str | None:
    """The cell as our own files have it; None: it is there and cannot be read as this column's type."""
    if not text:
        return ""
    if column.type == "bool":
        return BOOLS.get(text)
    if column.type == "int":
        found = WHOLE.fullmatch(text)
        return str(int(found[1])) if found and len(text) < 32 and abs(int(found[1])) < LARGEST_WHOLE else None
    if column.type == "float":
        return text if NUMBER.fullmatch(text) or NOT_FINITE.fullmatch(text) else None
    if MANGLED.fullmatch(text):
        return None
    if column.form and not re.fullmatch(column.form, text, re.ASCII):
        found = WHOLE.fullmatch(text) if column.form == INTEGERS else None  # a list of one whole number
        return found[1] if found else None
    return text


@dataclass(frozen=True)
class Unread:
    """What cannot be read in one column of a file: the first value, whether there are others, in how many rows."""

    file: str
    column: str
    value: str
    others: bool
    rows: int

    def __str__(self) -> str:
        rows = f"{self.rows:,} row{'' if self.rows == 1 else 's'}"
        return f"{self.file}.csv, column {self.column}: {shortened(self.value)}{self.others * ' and others'} in {rows}"


def joined(found: Iterable[Unread]) -> list[Unread]:
    """One for each column, of those of several parts of a file."""
    by_column: dict[str, Unread] = {}
    for each in found:
        first = by_column.get(each.column)
        if first is not None:
            others = first.others or each.others or first.value != each.value
            each = Unread(first.file, first.column, first.value, others, first.rows + each.rows)
        by_column[each.column] = each
    return list(by_column.values())


def shortened(value: str) -> str:
    """A value in quotes, cut to 40 letters, of which none can steer a terminal."""
    return repr(value if len(value) <= 40 else f"{value[:40]}...").encode("ascii", "backslashreplace").decode()


@dataclass(frozen=True)
class Head:
    """A table's first line: its columns, by name and place, how many places it has, and what stands between them."""

    places: Mapping[str, int]
    width: int
    delimiter: str

    def row(self, line: str, numbers: Collection[str]) -> dict[str, str] | None:
        """The cells of a line; none if all are empty, None if it is no row. `numbers`: the columns of numbers.

        A line of fewer or more cells is no row, but for empty columns behind the last one, which spreadsheets leave out
        here and there.
        """
        cells = parsed(line, self.delimiter)
        if cells is None or not max(self.places.values()) < len(cells) <= self.width:
            return None if cells is None or any(cells) else {}
        if not any(cells):
            return {}
        found = {name: cells[place] for name, place in self.places.items()}
        if self.delimiter == ";" or '"' in line:
            found |= {name: pointed(found[name], self.delimiter) for name in numbers if name in found}
        return found


def pointed(text: str, delimiter: str) -> str:
    """A number's cell with a decimal point; one that may be a thousand becomes a text that says so, and no number."""
    if AMBIGUOUS.fullmatch(text) and ("," in text or delimiter == ";"):
        return f"{text} (a thousand or a fraction?)"
    return text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text


def head_of(line: str, first: str) -> Head | None:
    """What this line says of the table; None: it is no head, without the column `first` or with one twice."""
    bare = line.rstrip("\r\n").removeprefix(BYTE_ORDER_MARK)
    for delimiter in ",;":
        names = parsed(bare, delimiter) or []
        own = [name for name in names if not OTHERS_COLUMN.fullmatch(name)]
        if first in own and len(set(own)) == len(own):
            places = {name: place for place, name in enumerate(names) if name in own}
            return Head(places, len(names), delimiter)
    return None


def parsed(line: str, delimiter: str) -> list[str] | None:
    """The cells of one line, parsed on its own: a quote that never ends would swallow all lines after it."""
    try:
        (cells,) = csv.reader([line], strict=True, delimiter=delimiter)
    except (csv.Error, ValueError):
        return None
    return cells


def numeric(columns: Sequence[Column]) -> set[str]:
    """Those columns of whose cells the comma may be a decimal one."""
    return {column.name for column in columns if column.type in ("int", "float") or column.form == FRACTIONS}
