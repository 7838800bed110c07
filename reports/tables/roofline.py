"""Which of arithmetic and memory limits a trial more, and how near is it to that limit? Its place in a roofline.

A trial's arithmetic intensity is flops_per_window / accessed_bytes_per_window. Its roof is the smaller of two FLOP/s:
the ceiling at its number format, and the bytes/s of copies on the device x its intensity. At the ridge they are equal:
below it memory is the lower limit, above it arithmetic. Source: Williams, Waterman and Patterson, "Roofline: an
insightful visual performance model for multicore architectures", Communications of the ACM 52(4), 2009.

The bytes are counted as if no cache kept any (bench/instruments/memory_traffic.py), so that the intensity is a lower
one than the memory sees, and a trial whose caches serve it can lie above the roof that memory sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.called import as_called
from bench.record.ceiling_columns import in_number_format
from reports.tables.summary import Row

COPY = "device_copy"
MEMORY, COMPUTE = "memory", "compute"
RATE, BYTES = "model_flops_per_s", "accessed_bytes_per_window"

# (number format, kind of work) -> what the devices of a trial reach: FLOP/s, of copies bytes/s (read and written).
Rates = Mapping[tuple[str | None, str], float]


@dataclass(frozen=True)
class Roofline:
    """A trial and its roof, as of one of its devices. `intensity` is in FLOP/byte.

    `flops_per_s` is the trial's own, including what it recomputes. `ceilings`: kind of work -> the most FLOP/s at its
    number format. `copy_bytes_per_s` are bytes read and written.
    """

    number_format: str
    devices: int
    ceilings: Mapping[str, float]
    copy_bytes_per_s: float
    intensity: float
    flops_per_s: float

    def ridge(self) -> float:
        """The intensity, in FLOP/byte, at which both limits are equal."""
        return max(self.ceilings.values()) / self.copy_bytes_per_s

    def side(self) -> str:
        """The lower limit: MEMORY below the ridge, COMPUTE from there on."""
        return MEMORY if self.intensity < self.ridge() else COMPUTE

    def roof_flops_per_s(self) -> float:
        """The most FLOP/s at the trial's intensity."""
        return min(max(self.ceilings.values()), self.copy_bytes_per_s * self.intensity)

    def share(self) -> float:
        """The trial's FLOP/s as a share of its roof; above 1 where caches served what counts as accessed."""
        return self.flops_per_s / self.roof_flops_per_s()


def of_row(row: Row, rates: Rates, devices: int) -> Roofline | None:
    """The row's trial under the roof of these rates, which are of `devices` devices together; None: one is missing."""
    number_format = in_number_format(row["precision"], row["tf32"])
    ceilings = {kind: rate / devices for (name, kind), rate in rates.items() if name and name == number_format}
    copies = rates.get((None, COPY))
    flops, accessed, rate = (row[name] for name in ("flops_per_window", BYTES, RATE))
    if not (number_format and ceilings and copies and flops and accessed and rate):
        return None
    # The device computes, and accesses memory for, what is recomputed too; the model's own rate is without it.
    rate *= flops / (flops - (row.get("recomputed_flops_per_window") or 0))
    return Roofline(number_format, devices, ceilings, copies / devices, flops / accessed, rate / devices)


def remarks(row: Row) -> list[str]:
    """That a trial lies above the roof of memory; and why one that has a ceiling has no place under a roof."""
    roofline = row["roofline"]
    if roofline is not None:
        above = roofline.side() == MEMORY and roofline.share() > 1.0
        return ["above the roof of memory: caches served bytes that are counted as if none were kept"] if above else []
    if row["status"] != "ok" or not row["ceiling_flops_per_s"]:
        return []
    if row["compiled_graphs"] is not None:
        return ["under no roof: what torch.compile's fused kernels compute and access cannot be counted"]
    if row[RATE] is None:
        return ["under no roof: the operations of a step were not counted; give --warmup-windows 3 or more"]
    if row[BYTES] is None:
        return ["under no roof: the version that ran it counted no bytes; run it again"]
    if row["copy_bytes_per_s"] is None:
        why = "no copy was measured beside the ceiling; python -m launch ceilings measures one"
        return [as_called(f"under no roof: {why}")]
    return []
