"""Memory: what tensors took, what the allocator held, what the whole device held, and what the host process held."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.probes import Over, Span, Value
from bench.probes import Probe as Base
from bench.record import Column

if TYPE_CHECKING:
    import torch

EPOCHS = TRIALS = [
    Column(
        "peak_allocated_bytes",
        "int",
        "bytes",
        "max",
        "Peak of the tensors' bytes on the CUDA device, so far.",
    ),
    Column(
        "peak_reserved_bytes",
        "int",
        "bytes",
        "max",
        "Peak that CUDA's caching allocator held for them, so far.",
    ),
    Column(
        "peak_device_bytes",
        "int",
        "bytes",
        "max",
        "Most in use on the whole device, other processes included, where the probes were read.",
    ),
    Column(
        "peak_rss_bytes",
        "int",
        "bytes",
        "max",
        "Peak resident memory of a rank's process (VmHWM), imports included and loader workers not.",
    ),
]


class Probe(Base):
    """Peaks since the process began, so that the model's own loading counts."""

    TOTALS: ClassVar[dict[str, Over]] = {column.name: ("peak", "max") for column in TRIALS}

    def begin(self, device: torch.device) -> None:
        self.device = device
        self.device_bytes: Value = None

    def totals(self) -> dict[str, Value]:
        values = dict.fromkeys(self.TOTALS, None) | {"peak_rss_bytes": peak_rss_bytes()}
        if self.device.type == "cuda":
            from bench.cuda import memory

            allocated, reserved, in_use = memory(self.device)
            if in_use is not None:
                self.device_bytes = max(self.device_bytes or 0, in_use)
            values |= {"peak_allocated_bytes": allocated, "peak_reserved_bytes": reserved}
            values |= {"peak_device_bytes": self.device_bytes}
        return values

    def derive(self, span: Span) -> dict[str, Value]:
        return {
            name: None if value is None else int(value) for name, value in span.totals.items() if name in self.TOTALS
        }


def peak_rss_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """The process's peak resident memory, or None where the kernel does not say.

    Not getrusage's ru_maxrss: a process inherits that from the one that started it.
    """
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return None
    peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return peaks[0] if peaks else None
