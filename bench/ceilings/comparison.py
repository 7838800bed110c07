"""Is one of these devices slower than its likes? Imports no torch.

The rule. Devices are likes if they have the same name and did the same matrix products (on a CPU, also the same CPU
model, and as many of its CPUs). A device is called slow if, at some number format, its median time is above the median
of its likes' by more than three standard deviations. The variance is the sum of three:

- how far equal devices lie apart: 0.63% of their throughput, the coefficient of variation of 39 machines with H100 SXM
  in Lambda's published ResNet-50 benchmarks (2683..2800 images/s);
- how far this device's repetitions lie apart, and how far its likes' do (the median of theirs), each by its quartiles
  (interquartile range / 1.349, which is a normal distribution's standard deviation). It is not divided by the root of
  their number: repetitions of one launch follow each other and are not independent.

So a device that was measured without noise is named from 1.9% on, and on a noisy machine only from more. Of two
devices, the slower one is named; nothing tells then whether it is slow or the other one fast.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

FIELD_SPREAD = 0.0063
DEVIATIONS = 3.0
IQR_OF_NORMAL = 1.349  # interquartile range in standard deviations
MACHINE = ("host", "device_name", "cpu_model")

Row = Mapping[str, Any]


class Device(NamedTuple):
    """One device of one machine."""

    host: str
    rank: str
    uuid: str

    def __str__(self) -> str:
        return f"{self.host}, device {self.rank}" + (f" ({self.uuid})" if self.uuid else "")


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


def slow_devices(rows: Iterable[Row]) -> list[Slow]:
    """The devices that are slow by the rule above, of these rows of ceilings.csv; of a device's rows the last count."""
    groups: dict[tuple[str, ...], dict[Device, Row]] = {}
    for row in rows:
        if row["kind"] == "matrix_product" and _median(row) > 0:
            device = Device(*(_text(row, name) for name in ("host", "rank", "device_uuid")))
            groups.setdefault(_likeness(row), {})[device] = row
    return [slow for (number_format, *_), group in groups.items() for slow in _slow(number_format, group)]


def _slow(number_format: str, group: Mapping[Device, Row]) -> list[Slow]:
    found = []
    for device, row in group.items():
        others = [other for key, other in group.items() if key != device]
        if not others:
            continue
        usual = statistics.median(_median(other) for other in others)
        share = _median(row) / usual - 1
        spread = math.hypot(FIELD_SPREAD, _spread(row), statistics.median(map(_spread, others)))
        if share > DEVIATIONS * spread:
            found.append(Slow(device, number_format, share, DEVIATIONS * spread, len(others)))
    return found


def unlike(rows: Sequence[Row]) -> list[str]:
    """Names of the devices here that have no like among these rows."""
    groups: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        if row["kind"] == "matrix_product":
            groups.setdefault(_likeness(row)[2:], set()).add(" ".join(_text(row, n) for n in ("host", "rank")))
    return [name for (name, *_), devices in groups.items() if len(devices) == 1]


def _likeness(row: Row) -> tuple[str, ...]:
    on_cpu = ("cpu_model", "cpu_count") if row["device_name"] == "cpu" else ()
    return tuple(_text(row, name) for name in ("number_format", "work", "device_name", *on_cpu))


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value)


def _median(row: Row) -> float:
    return float(row["call_time_p50_s"])


def _spread(row: Row) -> float:
    """The standard deviation of the repetitions, as a share of their median."""
    return (float(row["call_time_p75_s"]) - float(row["call_time_p25_s"])) / IQR_OF_NORMAL / _median(row)
