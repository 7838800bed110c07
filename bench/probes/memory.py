"""Memory: of tensors, of CUDA's caching allocator, and of the host process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.column import Column, gib
from bench.machine import gpus
from bench.machine.procfs import peak_rss_bytes
from bench.probes import Aggregation, Span, Value
from bench.probes import Probe as Base

if TYPE_CHECKING:
    import torch

EPOCHS = TRIALS = [
    Column(
        "peak_allocated_bytes",
        "int",
        "bytes",
        "max",
        "Peak of the tensors' bytes on the CUDA device, so far.",
        shown=gib("GPU GiB\nallocated", 30),
    ),
    Column(
        "peak_reserved_bytes",
        "int",
        "bytes",
        "max",
        "Peak that CUDA's caching allocator held for them, so far.",
        shown=gib("GPU GiB\nreserved", 31),
    ),
    Column(
        "peak_rss_bytes",
        "int",
        "bytes",
        "max",
        "Peak resident memory of a rank's process since the trial began, imports included and loader workers not.",
        shown=gib("host GiB\nper rank", 32),
    ),
]


class Probe(Base):
    """Peaks since the trial began (`forget_peak_rss`), so that loading data and model is included."""

    TOTALS: ClassVar[dict[str, Aggregation]] = {column.name: ("peak", "max") for column in TRIALS}

    def begin(self, device: torch.device) -> None:
        self.device = device

    def totals(self) -> dict[str, Value]:
        values = dict.fromkeys(self.TOTALS, None) | {"peak_rss_bytes": peak_rss_bytes()}
        if self.device.type == "cuda":
            from bench.machine.cuda import memory

            allocated, reserved = memory(self.device)
            values |= {"peak_allocated_bytes": allocated, "peak_reserved_bytes": reserved}
        return values

    def derive(self, span: Span) -> dict[str, Value]:
        return {
            name: None if value is None else int(value) for name, value in span.totals.items() if name in self.TOTALS
        }


def forget_peak_rss(refs: Path = Path("/proc/self/clear_refs")) -> bool:
    """Have the kernel restart the peak at what is resident now; False if it does not.

    If /proc is read-only, the peak remains that of the whole process. 5 resets VmHWM, see proc(5), clear_refs.
    """
    try:
        refs.write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True


def unreadable() -> dict[str, str]:
    """Column -> why it cannot be read here."""
    cuda = gpus.why_none()
    found = (
        dict.fromkeys(("peak_allocated_bytes", "peak_reserved_bytes"), f"needs a CUDA device: {cuda}") if cuda else {}
    )
    if peak_rss_bytes() is None:
        return found | {"peak_rss_bytes": "no VmHWM in /proc/self/status"}
    if not forget_peak_rss():
        return found | {"peak_rss_bytes": "since the process began: /proc/self/clear_refs is not writable"}
    return found
