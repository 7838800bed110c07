"""What a line of a trial measures, from left to right, and its throughput as a multiple of the first line's.

The multiple is exp of the difference of the two means of log(images/s), one value per launch; of one launch a side,
the plain quotient. Its 95% interval (Welch's, see reports/verdicts/significance.py) is over launches on these very
machines: how far another specimen of the same kind differs, it cannot know.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from bench.column import Column, Shown, gib, percent
from bench.record.columns import columns
from reports.across.machines import Line
from reports.tables import prices, scaling, to_target
from reports.verdicts import significance

Ends = tuple[float, float] | None
KNOWN = {column.name: column for column in columns("trials")}
_, EXPOSED, WAIT = scaling.SHARES


@dataclass(frozen=True)
class Measure:
    """One figure of a line: its name and unit in files, what it means, how a table shows it.

    `value` gives it for (line, first line); `ends` what stands in brackets behind it: the lowest and the highest of
    several launches, or `between`, if that is another pair.
    """

    name: str
    unit: str
    text: str
    shown: Shown
    value: Callable[[Line, Line], float | None]
    ends: Callable[[Line, Line], Ends]
    between: str = "the lowest and the highest launch"

    def cell(self, line: Line, first: Line) -> str:
        """The figure as a table writes it; empty if it is not known."""
        found = self.value(line, first)
        if found is None:
            return ""
        ends = [self.written(end) for end in self.ends(line, first) or ()]
        return f"{self.written(found)} ({'..'.join(ends)})" if len(set(ends)) > 1 else self.written(found)

    def written(self, value: float) -> str:
        """One number."""
        return "never" if value == to_target.NEVER else self.shown.number(value)


def of_column(name: str, shown: Shown | None = None, column: Column | None = None) -> Measure:
    """The median of a column of trials.csv, shown as the column says, else in this way; nothing in older rows."""
    column = column or KNOWN[name]
    form = column.shown or shown or Shown(name)
    return Measure(
        name,
        column.unit,
        column.text,
        form,
        lambda line, _: line.row.get(name),
        lambda line, _: line.row["spread"].get(name) if form.spread else None,
    )


def of_row(name: str, unit: str, text: str, shown: Shown, value: Callable[[Line], float | None]) -> Measure:
    """A figure that is computed from several columns."""
    return Measure(name, unit, text, shown, lambda line, _: value(line), lambda *_: None)


def times_first(line: Line, first: Line) -> tuple[float, Ends] | None:
    """(the throughput as a multiple of the first line's, its 95% interval if both have launches enough).

    None for a published figure without a precision: its number format may be another, several times as fast.
    """
    if line.published is not None and line.published.precision is None:
        return None
    base, own = throughputs(first), throughputs(line)
    if line is first or not base or not own:
        return (1.0, None) if line is first and base else None
    change = significance.change(base, own, paired=False)
    if change is None:
        means = [statistics.fmean(map(math.log, values)) for values in (base, own)]
        return 1 + significance.Change(means[1] - means[0], math.nan, math.nan).size(), None
    low, high = change.limits()
    return 1 + change.size(), (1 + low, 1 + high)


def throughputs(line: Line) -> list[float]:
    """Images/s of each launch that ended well, or as published."""
    if line.published is not None:
        return [line.published.images_per_s]
    found = (row["images_per_s"] for row in line.row["each"])
    return [value for value in found if value is not None and value > 0]


def price_of_epoch(line: Line, _: Line) -> float | None:
    return prices.price(line.row, line.row["epoch_time_s"])


def prices_of_epochs(line: Line, _: Line) -> Ends:
    low, high = (prices.price(line.row, seconds) for seconds in line.row["spread"].get("epoch_time_s", (None, None)))
    return None if low is None or high is None else (low, high)


def price_to_target(line: Line, _: Line) -> float | None:
    """The median over the launches that ended well or diverged; NEVER: half of them or more did not reach it."""
    found = prices_to_target(line)
    return statistics.median(found) if found else None


def prices_to_target(line: Line) -> list[float]:
    """What its target cost each launch; none without a price or a target."""
    if line.row.get(prices.PRICE) is None or line.row["target_accuracy"] is None:
        return []
    launches = [row for row in (*line.row["each"], *line.failed) if row["status"] in to_target.COUNTED]
    return to_target.values(launches, prices.TO_TARGET) or []


# As a version has them whose rows have no such column.
MFU = Column("mfu", "float", "1", "", "Share of the device's peak that the model's own arithmetic comes to.")
MODEL_FLOPS = Column("model_flops_per_s", "float", "FLOP/s", "", "Arithmetic of the model itself in a second.")
MEASURES = [
    of_column("images_per_s"),
    Measure(
        "times_first",
        "1",
        "images_per_s as a multiple of the first machine's: the ratio of geometric means over launches.",
        Shown("x the\nfirst", spec=".3f", spread=True),
        lambda line, first: (times_first(line, first) or (None, None))[0],
        lambda line, first: (times_first(line, first) or (None, None))[1],
        "its 95% interval",
    ),
    of_column("epoch_time_s"),
    of_column("peak_allocated_bytes"),
    of_column("peak_reserved_bytes"),
    of_column("peak_device_bytes", gib("GPU GiB\nin use")),
    of_column("peak_rss_bytes"),
    of_column("energy_per_image_j"),
    of_column("images_per_j", Shown("images/s\nper W", spread=True)),
    Measure(
        "price_of_epoch",
        "money",
        "Price of an hour of one device x devices of the group x epoch_time_s / 3600.",
        Shown("price of\nan epoch", spread=True),
        price_of_epoch,
        prices_of_epochs,
    ),
    Measure(
        prices.TO_TARGET,
        "money",
        "The same x time_to_target_s in place of epoch_time_s; nothing: half of the launches did not reach it.",
        Shown("price to\ntarget", spread=True),
        price_to_target,
        lambda line, _: (min(found), max(found)) if (found := prices_to_target(line)) else None,
    ),
    of_column(MFU.name, percent("of the\npeak %"), KNOWN.get(MFU.name, MFU)),
    of_column(MODEL_FLOPS.name, Shown("model\nTFLOP/s", 1e-12, spread=True), KNOWN.get(MODEL_FLOPS.name, MODEL_FLOPS)),
    of_row(
        "data_wait_share",
        "1",
        "Share of a mean step in which the rank that waited longest waited for data.",
        percent("data\nwait %", spec=".0f"),
        lambda line: WAIT(line.row),
    ),
    of_row(
        "exposed_communication_share",
        "1",
        "Share of a mean step in which communication was not hidden behind computing, of the rank with most of it.",
        percent("exposed\ncomm. %", spec=".0f"),
        lambda line: EXPOSED(line.row) if (line.row["processes"] or 1) > 1 else None,
    ),
    of_column("throttled_share", percent("throttled\n%", spec=".0f", spread=False)),
    of_column("power_capped_share"),
    of_column("other_processes", Shown("others on\nthe device")),
]
