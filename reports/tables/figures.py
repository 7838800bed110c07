"""The figures of a table, from left to right: the columns that say how they are shown, and what is made of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.column import Column, Shown, percent
from bench.record.columns import columns
from reports.tables import prices, scaling
from reports.tables.summary import Row

Cell = Callable[[Row], str]


@dataclass(frozen=True)
class Figure:
    """One column of a table: its order from the left, its heading, and the text of a summarised row's cell."""

    order: int
    heading: str
    cell: Cell


def text(value: Any) -> str:
    """A setting or text as a cell; None is empty."""
    return "" if value is None else str(value)


def of_column(column: Column, shown: Shown) -> Figure:
    """The figure of one column of trials.csv, as the column says that it is shown."""

    def one(value: Any) -> str:
        return text(value) if value is None or column.type in ("str", "bool") else shown.number(float(value))

    def cell(row: Row) -> str:
        value = one(row[column.name])
        low, high = map(one, row["spread"].get(column.name, (None, None)))
        found = f"{value} ({low}..{high})" if shown.spread and low != high else value
        known = sum(launch[column.name] is not None for launch in row["each"])
        return f"{found} of {known}" if 0 < known < len(row["each"]) else found  # of fewer launches than the line has

    return Figure(shown.order, shown.heading, cell)


def computed(value: Callable[[Row], float | None], shown: Shown) -> Figure:
    """The figure of a number that is computed from several columns."""
    return Figure(shown.order, shown.heading, lambda row: "" if (n := value(row)) is None else shown.number(n))


def launches(row: Row) -> str:
    """How many launches the row's medians are of; empty for one."""
    return str(len(row["each"])) if len(row["each"]) > 1 else ""


def published(row: Row) -> str:
    """The accuracies that the source reports."""
    shares = (row[f"published_{part}_accuracy"] for part in ("train", "eval"))
    train, evaluation = ("-" if share is None else f"{100 * share:.1f}" for share in shares)
    return "" if train == evaluation == "-" else f"{train} / {evaluation}"


COMPUTE, EXPOSED, WAIT = scaling.SHARES
ALWAYS = [
    *(of_column(column, column.shown) for column in columns("trials") if column.shown),
    Figure(1, "launches", launches),
    computed(WAIT, percent("data\nwait %", 14, ".0f")),
    computed(lambda row: row["ceiling_share"], percent("of the\nceiling %", 17)),
    computed(lambda row: row["roofline"] and row["roofline"].intensity, Shown("FLOP/\nbyte", order=18)),
    Figure(18, "roof\nset by", lambda row: row["roofline"].side() if row["roofline"] else ""),
    computed(lambda row: row["roofline"] and row["roofline"].share(), percent("of the\nroof %", 18)),
    computed(lambda row: prices.price(row, row["epoch_time_s"]), Shown("price of\nan epoch", order=34)),
    Figure(44, "published\ntrain / eval %", published),
]
# One process computes all the time that it does not wait for data.
OF_SEVERAL_PROCESSES = [
    computed(COMPUTE, percent("compute\n%", 20, ".0f")),
    computed(EXPOSED, percent("exposed\ncomm. %", 21, ".0f")),
    computed(lambda row: row["efficiency"], percent("efficiency\n%", 24, ".0f")),
]


def figures(rows: Sequence[Row]) -> list[Figure]:
    """The figures of a table with these rows; those that no row has are left out."""
    several = any((row["processes"] or 1) > 1 for row in rows)
    found = sorted([*ALWAYS, *(OF_SEVERAL_PROCESSES if several else [])], key=lambda figure: figure.order)
    return [figure for figure in found if any(figure.cell(row) for row in rows)]
