"""One column of a CSV file: what it holds, which comparisons it takes part in, and how a table shows it.

What may be compared with what is decided here and nowhere else: a column names its roles, and ROLES says what a role
means. `reports` derives its lists of columns with `bench.record.columns.kept_apart`. A new machine column, such as the
version of a firmware, needs one line: a column with `roles=("machine",)`. It stands in the probe that measures it, or
in bench/record/columns.py if bench/machine/environment.py gives its value.

An empty cell is unknown: an older version had no such column, or this machine has no such thing. In a verdict and in
the choice of a baseline, two rows differ only if both have a value: an unknown value may be the same one. Medians,
efficiencies and tables are stricter, because they show rows as one: there a row without a value stands apart from those
with one. Where a column of the role "identity" is empty, there is no verdict at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal[
    "setting", "work", "group", "reading", "machine", "adjustable", "input", "launch", "code", "identity", "stated"
]
Use = Literal["trial", "verdict", "median", "efficiency", "table", "baseline", "identity", "stated"]

# Role -> the uses in which rows that differ in such a column are kept apart:
#   trial       launches are of one trial only if all of these are equal
#   verdict     no verdict is given on launches that differ
#   median      launches that differ are not put together into one median
#   efficiency  a row of several processes is not held against a row of one process that differs
#   table       rows that differ stand in tables of their own
#   baseline    each has a baseline folder of its own
# Two uses are about a single row:
#   identity    if the cell is empty, the machine is not known and there is no verdict
#   stated      a table states the value: in a column if its rows differ, else beneath the table
ROLES: dict[Role, tuple[Use, ...]] = {
    # A setting of the trial.
    "setting": ("trial", "median", "efficiency"),
    # A setting that makes it other work: two tables, unless the experiment's arms are about it.
    "work": ("trial", "median", "efficiency", "table"),
    # A setting that one process has no use for, or that changes with the number of processes.
    "group": ("trial", "median"),
    # What is read off a trial whose work does not depend on it.
    "reading": ("median",),
    # The machine, and the versions of what computes: other hardware or another version is another machine.
    "machine": ("verdict", "median", "efficiency", "table", "baseline"),
    # As "machine", but it may change on a machine that keeps its baseline, such as a driver or a power limit.
    "adjustable": ("verdict", "median", "efficiency", "table"),
    # What fed the trial: it may differ within one run.
    "input": ("verdict", "median", "efficiency"),
    # How this launch used the machine, which follows from its processes: threads, devices, the backend.
    "launch": ("verdict", "median"),
    # The commit: a verdict is about its change; nothing else mixes two of them.
    "code": ("median", "efficiency"),
    "identity": ("identity",),
    "stated": ("stated",),
}


@dataclass(frozen=True)
class Shown:
    """How the tables of `reports show` and `reports page` show a column; where no row has a value, they leave it out.

    `heading` may have two lines. A number is multiplied by `factor` and written with Python's format `spec`; "" stands
    for four digits, or the whole number where it has more. `spread`: of several launches the lowest and the highest
    follow the median, as in 205 (198..213). `order` sorts the columns from left to right.
    """

    heading: str
    factor: float = 1.0
    spec: str = ""
    spread: bool = False
    order: int = 100  # right of the built-in columns, which have lower numbers

    def number(self, value: float) -> str:
        """One number as the table writes it."""
        return format(value * self.factor, self.spec) if self.spec else digits(value * self.factor)


def digits(value: float) -> str:
    """Four digits, or the whole number where it has more: never 1.235e+04."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(heading: str, order: int = 100, spec: str = ".1f", spread: bool = True) -> Shown:
    """A share, shown in percent."""
    return Shown(heading, 100, spec, spread, order)


def gib(heading: str, order: int = 100) -> Shown:
    """Bytes, shown in GiB."""
    return Shown(heading, 1 / 2**30, ".2f", True, order)


@dataclass(frozen=True)
class Column:
    """One column: its name, type, unit, how ranks are combined ("": not measured by rank), and one sentence.

    `roles` say what it keeps apart (see ROLES), `shown` how a table shows it; None: no table does. `form`: a regular
    expression that each text of this column matches, by which what a spreadsheet made of it is known; "": any text.
    """

    name: str
    type: Literal["str", "int", "float", "bool"]
    unit: str
    ranks: Literal["", "max", "sum", "median", "rank 0"]
    text: str
    roles: tuple[Role, ...] = ()
    shown: Shown | None = None
    form: str = ""

    def keeps_apart(self, use: Use) -> bool:
        """Whether one of its roles has this use."""
        return any(use in ROLES[role] for role in self.roles)
