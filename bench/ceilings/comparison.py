"""Is one of these devices slower than its likes? Imports no torch.

Likes. Devices are likes if they did the same matrix products, as many of them at once (`measuring`), and are equal in
all that keeps tables apart (see bench/column.py) but the host: name, CPU, versions, power limit, clock. A device is
known by its UUID, and without one by its host and rank; of its rows among its likes the last counts.

The rule. A device is called slow if, at some number format, its median time lies further above the median of its likes'
than three standard deviations would be for a single comparison. Of more comparisons (devices x number formats) each is
held to that level, 0.135%, divided by their number (Bonferroni): so about one healthy machine in 740 is called slow,
with however many devices. The variance is the sum of three:

- how far equal devices lie apart: 0.63% of their throughput, the coefficient of variation of 39 machines with H100 SXM
  in Lambda's published ResNet-50 benchmarks (2683..2800 images/s). The median of k likes varies too: times 1 + 1/k for
  one or two, which is their mean, and 1 + (pi/2)/k for more, by the variance of a normal distribution's median;
- how far this device's repetitions lie apart, and how far its likes' do (the median of theirs), each by its quartiles
  (interquartile range / 1.349, which is a normal distribution's standard deviation). It is not divided by the root of
  their number: repetitions of one launch follow each other and are not independent.

So one of 8 devices that were measured without noise at four number formats is named from 2.7% on, one of two from
3.2%, and on a noisy machine only from more. Of two devices, the slower one is named; nothing tells then whether it is
slow or the other one fast.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bench.record.columns import columns

FIELD_SPREAD = 0.0063
NORMAL = statistics.NormalDist()
LEVEL = NORMAL.cdf(-3.0)  # of all comparisons together
IQR_OF_NORMAL = 1.349  # interquartile range in standard deviations
TIMES = ("call_time_p25_s", "call_time_p50_s", "call_time_p75_s")
MACHINE = ("host", "device_name", "cpu_model")
EQUAL_IN = [column.name for column in columns("ceilings") if column.keeps_apart("table") and column.name != "host"]
LIKES = ("number_format", "work", "measuring", *EQUAL_IN)
NAME = LIKES.index("device_name") - 1  # in LIKES without the number format

Row = Mapping[str, Any]


class Device(NamedTuple):
    """One device of one machine."""

    host: str
    rank: str
    device_uuid: str

    def __str__(self) -> str:
        return f"{self.host}, device {self.rank}" + (f" ({self.device_uuid})" if self.device_uuid else "")


class Slow(NamedTuple):
    """A device that is slower than its likes: at which number format, by which share, and above which one it counts."""

    device: Device
    number_format: str
    share: float
    margin: float
    likes: int

    def __str__(self) -> str:
        others = f"the other {self.likes}" if self.likes > 1 else "the other one"
        return (
            f"{self.device} takes {self.share:.1%} longer for a matrix product in {self.number_format} than {others}; "
            f"up to {self.margin:.1%} would be spread"
        )


def machine_of(row: Row) -> tuple[str, ...]:
    """What tells one machine's rows from another's."""
    return tuple(str(row.get(name) or "") for name in MACHINE)


def readable(row: Row) -> bool:
    """Whether the row can be compared: the times of a matrix product are numbers."""
    try:
        return row.get("kind") != "matrix_product" or all(0 <= float(row[name]) < math.inf for name in TIMES)
    except (KeyError, TypeError, ValueError):  # a cell lacks, or holds something else
        return False


def slow_devices(rows: Iterable[Row]) -> list[Slow]:
    """The devices that are slow by the rule above, of these rows of ceilings.csv."""
    groups = {likeness: devices for likeness, devices in _groups(rows).items() if len(devices) > 1}
    comparisons = sum(map(len, groups.values()))
    deviations = -NORMAL.inv_cdf(LEVEL / max(comparisons, 1))
    return [slow for devices in groups.values() for slow in _slow(devices, deviations)]


def _slow(devices: Mapping[tuple[str, ...], Row], deviations: float) -> list[Slow]:
    found = []
    for key, row in devices.items():
        others = [other for other_key, other in devices.items() if other_key != key]
        share = _median(row) / statistics.median(map(_median, others)) - 1
        of_median = (1.0 if len(others) < 3 else math.pi / 2) / len(others)
        equal = FIELD_SPREAD * math.sqrt(1 + of_median)
        margin = deviations * math.hypot(equal, _spread(row), statistics.median(map(_spread, others)))
        if share > margin:
            device = Device(*(_text(row, name) for name in Device._fields))
            found.append(Slow(device, _text(row, "number_format"), share, margin, len(others)))
    return found


def unlike(rows: Iterable[Row]) -> list[str]:
    """Names of the devices that have no like among these rows, each with what keeps the nearest of its name apart."""
    groups: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for (_, *likeness), devices in _groups(rows).items():
        groups.setdefault(tuple(likeness), set()).update(devices)
    found = []
    for alone in (likeness for likeness, devices in groups.items() if len(devices) == 1):
        name = alone[NAME]
        apart = [_differing(alone, other) for other in groups if other != alone and other[NAME] == name]
        nearest = min(apart, key=len, default=[])
        found.append(f"{name} (the nearest of its name differs in {', '.join(nearest)})" if nearest else name)
    return found


def _differing(one: Sequence[str], other: Sequence[str]) -> list[str]:
    return [name for name, left, right in zip(LIKES[1:], one, other, strict=True) if left != right]


def _groups(rows: Iterable[Row]) -> dict[tuple[str, ...], dict[tuple[str, ...], Row]]:
    """Values of LIKES -> device -> its last row of a matrix product."""
    groups: dict[tuple[str, ...], dict[tuple[str, ...], Row]] = {}
    for row in rows:
        if row["kind"] == "matrix_product" and _median(row) > 0:
            uuid = _text(row, "device_uuid")
            key = (uuid,) if uuid else (_text(row, "host"), _text(row, "rank"))
            groups.setdefault(tuple(_text(row, name) for name in LIKES), {})[key] = row
    return groups


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value)


def _median(row: Row) -> float:
    return float(row["call_time_p50_s"])


def _spread(row: Row) -> float:
    """The standard deviation of the repetitions, as a share of their median."""
    return (float(row["call_time_p75_s"]) - float(row["call_time_p25_s"])) / IQR_OF_NORMAL / _median(row)
