"""What a device computes at most, as its maker publishes it: dense, by number format. Imports no torch.

The table (peaks.csv) is by the device's name as torch gives it, which must be equal: a name that stands for devices
with several peaks has none. "Orin" does, whose clocks depend on module and power mode, and so does a part of a GPU
(MIG), which has a name of its own. fp32 is that of the CUDA cores; fp16 and bf16 add up in fp32, as torch has it. The
A10, A30, L4, and the NVL boards of H100 and H200 are left out: their data sheets were not at hand.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("peaks.csv")  # in TFLOP/s, as data sheets have it
FORMATS = ("fp32", "tf32", "fp16", "bf16")
TERA = 10**12


@dataclass(frozen=True)
class Peaks:
    """One device's FLOP/s by number format, and the document that gives them."""

    flops_per_s: dict[str, float]
    source: str


@functools.cache
def known_peaks() -> dict[str, Peaks]:
    """Name, as torch gives it -> the device's peaks. A format that it does not have is missing."""
    with open(TABLE, newline="", encoding="utf-8") as file:
        return {
            row["device_name"]: Peaks({name: float(row[name]) * TERA for name in FORMATS if row[name]}, row["source"])
            for row in csv.DictReader(file)
        }


def peak(device_name: str | None, number_format: str | None) -> float | None:
    """A device's FLOP/s at most; None: no peak is published for this name and format, as for a CPU."""
    of_device = known_peaks().get(device_name or "")
    return of_device.flops_per_s.get(number_format or "") if of_device else None


def share_of_peak(
    flops_per_s: float | None, device_name: str | None, devices: int, number_format: str | None
) -> float | None:
    """FLOP/s of a group as a share of the peak of all its devices; None: one of the numbers is not known."""
    of_one = peak(device_name, number_format)
    return flops_per_s / (of_one * devices) if flops_per_s is not None and of_one and devices else None
