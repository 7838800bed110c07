"""How near is a trial to what its machine gives at most, as `python -m launch ceilings` measured it?

The ceiling of a trial is the most FLOP/s that any matrix product or convolution reached at the trial's number format,
each on its slowest device, since processes that share gradients wait for it, times the trial's devices. It holds for
rows of the same machine, versions and limits alone (MACHINE); of several measurements the last counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.record.ceiling_columns import in_number_format
from bench.record.columns import columns
from reports.tables.summary import Row

MACHINE = [column.name for column in columns("ceilings") if column.keeps_apart("table")]
COMPUTED = ("matrix_product", "convolution")
MOST_SHARE = 1.0  # above it the ceilings are doubted


def with_ceilings(rows: Sequence[Row], ceilings: Sequence[Row]) -> list[Row]:
    """The rows, each with `ceilings` (number format -> FLOP/s of all its devices), its own `ceiling_flops_per_s`, and
    `ceiling_share`, its model_flops_per_s as a share of that; {} and None where nothing was measured."""
    found = []
    for row in rows:
        of_devices = ceilings_of(row, ceilings)
        ceiling = of_devices.get(in_number_format(row["precision"], row["tf32"]) or "")
        rate = row["model_flops_per_s"]
        share = rate / ceiling if ceiling and rate is not None else None
        more = {"ceilings": of_devices, "ceiling_flops_per_s": ceiling, "ceiling_share": share}
        found.append({**row, **more, "ceilings_known": bool(ceilings)})
    return found


def ceilings_of(row: Row, ceilings: Sequence[Row]) -> dict[str, float]:
    """Number format -> FLOP/s of the devices that the row's trial used; empty if they were not measured."""
    same = [each for each in ceilings if all(each[name] == row[name] for name in MACHINE)]
    if not same or row["machines"] not in (None, 1):  # of several machines one is known
        return {}
    devices = row["device_count"] or 1
    slowest: dict[tuple[str, ...], float] = {}
    for each in same:
        if each["launch_id"] == same[-1]["launch_id"] and each["kind"] in COMPUTED and each["flops_per_s"]:
            piece = (each["number_format"], each["kind"], each["work"])
            slowest[piece] = min(slowest.get(piece, each["flops_per_s"]), each["flops_per_s"])
    found: dict[str, float] = {}
    for (number_format, *_), rate in slowest.items():
        found[number_format] = max(found.get(number_format, 0.0), devices * rate)
    return found


def line(row: Mapping[str, object]) -> str:
    """What was measured on the row's machine, to follow its name; "": no ceilings.csv."""
    if not row["ceilings_known"]:
        return ""
    of_devices = row["ceilings"]
    if not isinstance(of_devices, dict) or not of_devices:
        return "; ceilings.csv has none of this machine and versions, so nothing here is held against it"
    rates = ", ".join(f"{name} {rate / 1e12:.4g}" for name, rate in of_devices.items())
    return f"; measured at most, TFLOP/s: {rates}"


def remarks(row: Row) -> list[str]:
    """Warnings about the row's share of its ceiling."""
    if (row["ceiling_share"] or 0.0) > MOST_SHARE:
        return ["above the measured ceiling: something disturbed the ceilings, measure them again"]
    return []
