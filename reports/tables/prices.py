"""What training costs in money: the price of an hour of one device x the devices of the group x hours.

Every device of the group is paid for, whatever it does. Of a CPU the device is the machine, and the CPU's model is its
name. The time that counts is that of training alone: epoch_time_s for an epoch, time_to_target_s until a target. The
column that says "with evaluation" counts each evaluation until then too. What a launch takes besides, such as its start
and its checkpoints, is in neither. Money has no currency here: it is that of the price given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from bench.errors import UsageError
from reports.tables.summary import Row, row_of

Prices = Mapping[str, float]  # device -> the price of an hour of one
PRICE = "price_of_hour"  # of one of the launch's devices
TO_TARGET, WITH_EVALUATION = "price_to_target", "price_to_target_with_evaluation"
# What a target cost -> the time that is paid for.
TIMES = {TO_TARGET: "time_to_target_s", WITH_EVALUATION: "time_to_target_with_evaluation_s"}
HOUR_S = 3600


def with_prices(trials: pd.DataFrame, prices: Prices | None) -> pd.DataFrame:
    """The rows of trials.csv, each with PRICE and what its target cost; without prices as they are.

    Raises UsageError as `check` does.
    """
    if not prices:
        return trials
    rows = [row_of(record) for record in trials.to_dict("records")]
    check(rows, prices)
    found = pd.DataFrame([cells(row, prices) for row in rows], index=trials.index, dtype="Float64")
    return trials.assign(**{name: found[name] for name in found})


def check(rows: Sequence[Row], prices: Prices) -> None:
    """Raises UsageError if a price is of a device that none of these launches used."""
    devices = list(dict.fromkeys(name for row in rows if (name := device(row)) is not None))
    if unknown := [name for name in prices if name not in devices]:
        instead = f"give {' or '.join(devices)}" if devices else "none of them knows its device"
        raise UsageError(f"no launch ran on {unknown[0]!r}, which has a --price; {instead}")


def cells(row: Row, prices: Prices) -> dict[str, float | None]:
    """PRICE of a launch and what its target cost; None: not known."""
    priced = {**row, PRICE: prices.get(device(row) or "")}
    return {PRICE: priced[PRICE], **{name: price(priced, row[time]) for name, time in TIMES.items()}}


def device(row: Row) -> str | None:
    """What a launch ran on: a GPU's name, or a CPU's model; None: it failed before it knew."""
    name: str | None = row["device_name"]
    return row["cpu_model"] or name if name == "cpu" else name


def price(row: Row, seconds: float | None) -> float | None:
    """What all devices of a launch cost for so long; None: time, price or number of devices is not known."""
    hour, count = row.get(PRICE), devices(row)
    if hour is None or count is None or seconds is None:
        return None
    found: float = hour * count * seconds / HOUR_S
    return found if math.isfinite(found) else None


def devices(row: Row) -> int | None:
    """How many devices the group had; None: not known, or they are of several kinds."""
    count: int | None = row["machines"] if row["device_count"] == 0 else row["device_count"]
    return None if mixed(row) else count


def mixed(row: Row) -> bool:
    """Whether the group's machines had devices of several kinds, of which device_name is the first."""
    name = f"CPU {row['cpu_model']}" if row["device_name"] == "cpu" else row["device_name"]
    each = row["devices"].split("; ") if row["devices"] else []
    return not all(one.endswith(f" x {name}") for one in each)


def said(rows: Sequence[Row]) -> str:
    """The prices of these rows' devices in words; "": none is given."""
    found = {device(row): row[PRICE] for row in rows if row.get(PRICE) is not None}
    parts = " and ".join(f"{hour:.10g} an hour for each {name}" for name, hour in found.items())
    return f"price: {parts}" if parts else ""


def line(rows: Sequence[Row]) -> str:
    """The same, to follow the name of the machine."""
    return f"; {words}" if (words := said(rows)) else ""


def remarks(row: Row) -> list[str]:
    """Why a row has a price and costs nothing."""
    several = row.get(PRICE) is not None and mixed(row)
    return ["not priced: its machines have devices of several kinds, and the price is of one"] if several else []
