"""How near is a trial to what its machine gives at most, as `python -m launch ceilings` measured it?

The ceiling of a trial is the most FLOP/s that any matrix product or convolution reached at the trial's number format,
each on its slowest device, since processes that share gradients wait for it, times the trial's devices. It holds for
rows of the same machine, versions and limits alone (MACHINE), and with as many devices at work at once, since the
slowest of eight is not the trial's one, and eight draw more power; of several measurements the last counts. Copies on
the device are taken likewise, and reports/tables/roofline.py holds the trial against both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.called import as_called
from bench.column import digits
from bench.record.ceiling_columns import in_number_format
from bench.record.columns import columns
from reports.tables import roofline
from reports.tables.roofline import COPY, Rates
from reports.tables.summary import Row
from reports.typed import UNREADABLE

MACHINE = [column.name for column in columns("ceilings") if column.keeps_apart("table")]
COMPUTED = ("matrix_product", "convolution")
MOST_SHARE = 1.0  # above it the ceilings are doubted


def with_ceilings(rows: Sequence[Row], ceilings: Sequence[Row]) -> list[Row]:
    """The rows, each with `ceilings` (number format -> FLOP/s of all its devices), its own `ceiling_flops_per_s`,
    `ceiling_share`, its model_flops_per_s as a share of that, `copy_bytes_per_s` of all its devices, and `roofline`; {}
    and None where nothing was measured. Where that was with other numbers of devices alone, `ceilings_with` has them.
    """
    found = []
    for row in rows:
        same, devices = of_machine(row, ceilings), devices_of(row)
        rates = rates_of(devices, same)
        of_devices = ceilings_of(rates)
        ceiling = of_devices.get(in_number_format(row["precision"], row["tf32"]) or "")
        rate = row["model_flops_per_s"]
        share = rate / ceiling if ceiling and rate is not None else None
        more = {"ceilings": of_devices, "ceiling_flops_per_s": ceiling, "ceiling_share": share}
        more |= {"copy_bytes_per_s": rates.get((None, COPY)), "roofline": roofline.of_row(row, rates, devices)}
        others = [] if of_devices else sorted({each["measuring"] for each in same if each["measuring"]})
        found.append({**row, **more, "ceilings_known": bool(ceilings), "ceilings_with": others})
    return found


def of_machine(row: Row, ceilings: Sequence[Row]) -> list[Row]:
    """What was measured on the row's machine, with its versions and limits; of several machines one is known: none.

    Of a machine with unlike devices, the row's device_name is one of them, and the others were measured with it.
    """
    if row["machines"] not in (None, 1) or row[UNREADABLE] is not None:
        return []
    measured = [each for each in ceilings if each["kind"] in (*COMPUTED, COPY) and rate_of(each)]
    launches = {each["launch_id"] for each in measured if all(each[name] == row[name] for name in MACHINE)}
    return [each for each in measured if each["launch_id"] in launches]


def rate_of(measured: Row) -> float | None:
    """FLOP/s; of a copy bytes/s."""
    return measured["bytes_per_s" if measured["kind"] == COPY else "flops_per_s"]


def rates_of(devices: int, same: Sequence[Row]) -> Rates:
    """The most that so many devices together reach, each taken as the slowest; {} if as many were not measured at
    once."""
    same = [each for each in same if each["measuring"] == devices]
    slowest: dict[tuple[str | None, str, str], float] = {}
    for each in same:
        if each["launch_id"] == same[-1]["launch_id"]:
            piece = (each["number_format"], each["kind"], each["work"])
            slowest[piece] = min(slowest.get(piece, math.inf), rate_of(each) or math.inf)
    found: dict[tuple[str | None, str], float] = {}
    for (number_format, kind, _), rate in slowest.items():
        found[number_format, kind] = max(found.get((number_format, kind), 0.0), devices * rate)
    return found


def ceilings_of(rates: Rates) -> dict[str, float]:
    """Number format -> the most FLOP/s, of whichever kind of work."""
    found: dict[str, float] = {}
    for (number_format, _), rate in rates.items():
        if number_format:
            found[number_format] = max(found.get(number_format, 0.0), rate)
    return found


def devices_of(row: Row) -> int:
    """How many devices the row's trial used; a CPU is one, whatever its processes."""
    return int(row["device_count"] or 1)


def line(rows: Sequence[Row]) -> str:
    """What was measured on the machine of a table's rows, to follow its name; "": no ceilings.csv, or see remarks."""
    if not rows[0]["ceilings_known"]:
        return ""
    by_devices = {devices_of(row): row["ceilings"] for row in rows if row["ceilings"]}
    bytes_per_s = {devices_of(row): row["copy_bytes_per_s"] for row in rows if row["ceilings"]}
    if not by_devices and not any(row["ceilings_with"] for row in rows):
        return "; ceilings.csv has none of this machine and versions, so nothing here is held against it"
    found = ""
    for devices, ceilings in sorted(by_devices.items()):
        rates = ", ".join(f"{name} {rate / 1e12:.4g}" for name, rate in ceilings.items())
        found += f"; measured at most{f' with {devices} devices' if devices > 1 else ''}, TFLOP/s: {rates}"
        if copies := bytes_per_s[devices]:
            ridges = ", ".join(f"{name} {digits(rate / copies)}" for name, rate in ceilings.items())
            found += f"; copies on the device {digits(copies / 1e9)} GB/s, read and written; ridge, FLOP/byte: {ridges}"
    if any(row["roofline"] for row in rows):
        found += "; bytes are counted as if no cache kept any"
    return found


def remarks(row: Row) -> list[str]:
    """Warnings about the row's shares of its ceiling and of its roof, and why it has none."""
    under_roof = roofline.remarks(row)
    if (row["ceiling_share"] or 0.0) > MOST_SHARE:
        return ["above the measured ceiling: something disturbed the ceilings, measure them again", *under_roof]
    if row["ceilings_with"]:
        devices, others = devices_of(row), " and ".join(map(str, row["ceilings_with"]))
        return [
            f"held against no ceiling: measured with {others} at once, and this trial used {devices}; "
            + as_called(f"python -m launch ceilings --processes {devices} measures it")
        ]
    return under_roof
