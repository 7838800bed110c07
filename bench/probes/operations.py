"""Counts of a step's operations, and of torch.compile's graphs: exact, and equal on a fast and on a slow machine.

Counting costs time, so it is done in a warm-up window: the last but one. The optimizer has its state by then, and
bench.probes.communication counts in the last one. The operations of the input pipeline and of the probes are included.

model_flops_per_s = FLOPs of all ranks in the counted window / its images x images_per_s. Work is proportional to
images, so that an epoch's short window counts as what it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bench.column import Column, percent
from bench.instruments.compilations import compilations
from bench.probes import Aggregation, Cell, Span, Value, ratio
from bench.probes import Probe as Base

if TYPE_CHECKING:
    import torch

    from bench.instruments.operations import Operations

COUNTED = "in a full step, counted in the last warm-up step but one; empty: warmup_windows below 3."
TRIALS = [
    Column(
        "flops_per_window",
        "int",
        "",
        "max",
        f"Floating-point operations of a rank's convolutions and matrix products, two for each multiply-add, {COUNTED}",
    ),
    Column(
        "recomputed_flops_per_window",
        "int",
        "",
        "max",
        f"Of flops_per_window, those that checkpoint_activations has a rank compute a second time, {COUNTED[:-1]}, or "
        "torch.compile, which recomputes inside its kernels.",
    ),
    Column(
        "accessed_bytes_per_window",
        "int",
        "bytes",
        "max",
        "Bytes that a rank's operations read and write on its device, each argument and each result once, as if no "
        f"cache kept any, {COUNTED[:-1]}, or torch.compile, whose fused kernels cannot be counted.",
    ),
    Column(
        "model_flops_per_s",
        "float",
        "FLOP/s",
        "",
        "FLOPs of the model's own work on all ranks, flops_per_window less recomputed_flops_per_window, in the time of "
        "images_per_s. With features once it is the head's work. Empty with torch.compile, whose kernels need not be "
        "counted.",
    ),
    Column(
        "mfu",
        "float",
        "1",
        "",
        "model_flops_per_s / the published peak of all devices of the group, dense, at the trial's precision and tf32; "
        "empty: none is known for device_name, as for a CPU.",
        shown=percent("MFU\n%", 16),
    ),
    Column("operations_per_window", "int", "", "max", f"Operations that a rank dispatches {COUNTED}"),
    Column("casts_per_window", "int", "", "max", f"Of these, changes of a tensor's number format {COUNTED}"),
    Column(
        "waits_per_window",
        "int",
        "",
        "max",
        f"Of these, waits for the device (.item(), a blocking copy) {COUNTED}",
    ),
    Column(
        "peak_bytes_per_window",
        "int",
        "bytes",
        "max",
        f"Peak of the tensors that a rank's operations made {COUNTED}",
    ),
    Column("operation_kinds", "str", "", "rank 0", f"Number of operations of each kind {COUNTED}"),
    Column(
        "compiled_graphs", "int", "", "max", "Graphs that torch.compile made, including recompiled ones; empty: none."
    ),
    Column(
        "graph_breaks",
        "int",
        "",
        "max",
        "Places at which torch.compile had to leave a graph; empty: nothing was compiled.",
    ),
]
BYTES, RECOMPUTED = "accessed_bytes_per_window", "recomputed_flops_per_window"
COUNTS = ("flops_per_window", "operations_per_window", "casts_per_window", "waits_per_window", "peak_bytes_per_window")
COMPILED = ("compiled_graphs", "graph_breaks")


class Probe(Base):
    """Counts in one window, on each rank."""

    TOTALS: ClassVar[dict[str, Aggregation]] = {
        "flops_per_window": ("peak", "max"),
        "flops_of_all_ranks": ("peak", "sum"),
        RECOMPUTED: ("peak", "max"),
        BYTES: ("peak", "max"),
        "operations_per_window": ("peak", "max"),
        "casts_per_window": ("peak", "max"),
        "waits_per_window": ("peak", "max"),
        "peak_bytes_per_window": ("peak", "max"),
        "compiled_graphs": ("peak", "max"),
        "graph_breaks": ("peak", "max"),
    }

    def begin(self, device: torch.device) -> None:
        self.operations: Operations | None = None
        self.counting = False
        self.first_images = 0
        self.device_type = device.type

    def window_begin(self, images: int, warmup_left: int) -> None:
        if warmup_left == 2 and images == self.first_images:
            from bench.instruments.operations import Operations

            self.operations, self.counting = Operations(), True
            self.operations.__enter__()
        self.first_images = self.first_images or images

    def window_end(self, images: int, measured: bool) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.counting:
            assert self.operations is not None
            self.operations.__exit__(None, None, None)
            self.counting = False

    def totals(self) -> dict[str, Value]:
        found, compiled = self.operations, compilations()
        if found is None or self.counting:
            return {**dict.fromkeys((*COUNTS, BYTES, RECOMPUTED, "flops_of_all_ranks")), **compiled}
        counted = (found.flops, found.kinds.total(), found.casts, found.waits, found.peak_bytes)
        # What is recomputed is work, but not the model's own.
        own: dict[str, Value] = {"flops_of_all_ranks": float(found.flops - found.recomputed_flops)}
        fused = compiled["compiled_graphs"] is not None
        own[BYTES] = None if fused else float(found.bytes_accessed[self.device_type])
        own[RECOMPUTED] = None if fused else float(found.recomputed_flops)
        return {**dict(zip(COUNTS, map(float, counted), strict=True)), **own, **compiled}

    def derive(self, span: Span) -> dict[str, Cell]:
        if span.epochs is None:
            return {}
        kinds = None if self.operations is None or self.counting else self.operations.by_kind()
        own = {"operation_kinds": kinds, "model_flops_per_s": self._model_flops_per_s(span)}
        return {**{name: span.totals[name] for name in (*COUNTS, BYTES, RECOMPUTED, *COMPILED)}, **own}

    def _model_flops_per_s(self, span: Span) -> Value:
        if span.totals["compiled_graphs"] is not None:
            return None
        per_image = ratio(span.totals["flops_of_all_ranks"], self.first_images)
        rate = ratio(span.totals["measured_images"], span.totals["measured_time_s"])
        return per_image * rate if per_image is not None and rate is not None else None

    def end(self) -> None:
        self._stop()
