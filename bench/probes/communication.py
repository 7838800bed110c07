"""Communication between processes: the parts of a step's time, and the all-reduces in it.

All-reduces are counted as torch dispatches them: DDP's buckets, gradient compression and `no_sync` are included.
Counting costs time, so it is done in the last warm-up window; DDP has its final buckets by then, which follow the order
of the first window's gradients. In measured windows the group's sequence number, which costs nothing to read, must have
risen by as many collectives; otherwise there is no count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bench.column import Column, Shown
from bench.probes import Aggregation, Span, Value, ratio
from bench.probes import Probe as Base

if TYPE_CHECKING:
    import torch

    from bench.instruments.collectives import Collectives

STEPS = [
    Column(
        "exposed_communication_s",
        "float",
        "s",
        "max",
        "Part of step_time_s in which the rank that waited longest waited for the shared gradients.",
    ),
]
SPLIT = [
    Column(
        "exposed_communication_s",
        "float",
        "s",
        "max",
        "Mean time per measured step in which a rank has all its own gradients and not yet the shared ones: "
        "communication, or waiting for a slower rank; of the rank that waited longest. Empty for one process.",
    ),
    Column(
        "compute_s",
        "float",
        "s",
        "max",
        "Mean per measured step of a rank's step time less its data wait and exposed communication, of the rank with "
        "the most; on a GPU a lower bound, since the GPU may work while the host waits for data.",
    ),
]
EPOCHS = SPLIT
TRIALS = [
    *SPLIT,
    Column(
        "allreduces_per_window",
        "int",
        "",
        "max",
        "All-reduces in a full step, counted in the last warm-up step and, if the backend numbers its collectives, "
        "confirmed for each measured one; empty: one process, warmup_windows below 2, or unequal steps.",
        shown=Shown("all-reduces\nper step", order=22),
    ),
    Column(
        "allreduce_bytes_per_window",
        "int",
        "bytes",
        "max",
        "Bytes of each rank's gradients in them; what crosses a link depends on the algorithm.",
        shown=Shown("MiB shared\nper step", 1 / 2**20, order=23),
    ),
]


class Probe(Base):
    """Marks on the device's time line when a rank has computed its gradients and when they are shared."""

    TOTALS: ClassVar[dict[str, Aggregation]] = {
        "measured_exposed_s": ("counter", "max"),
        "measured_compute_s": ("counter", "max"),
        "allreduces_per_window": ("peak", "max"),
        "allreduce_bytes_per_window": ("peak", "max"),
    }

    def begin(self, device: torch.device) -> None:
        from bench.instruments.collectives import several_processes

        self.marked: list[Any] = []  # two of each window: gradients computed, gradients shared
        self.several = several_processes()
        self.exposed_s = self.compute_s = 0.0
        self.waits: list[float] = []  # seconds that each window waited for data
        self.read: list[tuple[float, float]] = []  # (exposed communication, compute) of the windows read last
        self.wait_s = 0.0
        self.collectives: Collectives | None = None
        self.counting = False
        self.first_images = 0
        self.numbered = False  # whether the group's sequence number counts each collective, as not all backends' does
        self.collectives_seen: set[int] = set()  # its increases in the measured windows of `first_images` images

    def epoch_begin(self) -> None:
        self.wait_s = 0.0

    def batch_fetched(self, seconds: float) -> None:
        self.wait_s += seconds

    def window_begin(self, images: int, warmup_left: int) -> None:
        if not self.several:
            return
        from bench.instruments.collectives import Collectives, sequence_number

        self.number = sequence_number()
        if warmup_left == 1 and images == self.first_images:
            self.collectives, self.counting = Collectives(), True
            self.collectives.__enter__()
        self.first_images = self.first_images or images

    def communication_begin(self, loss_sum: torch.Tensor) -> None:
        if self.several:
            from bench.instruments.collectives import when_computed

            when_computed(loss_sum, self._mark)

    def communication_end(self) -> None:
        if self.several:
            self._mark()

    def _mark(self) -> None:
        self.marked.append(self.clock.now())

    def window_end(self, images: int, measured: bool) -> None:
        self.waits.append(self.wait_s)
        self.wait_s = 0.0
        if self.several:
            self._compare(images, measured)

    def _compare(self, images: int, measured: bool) -> None:
        from bench.instruments.collectives import sequence_number

        begun = sequence_number() - self.number
        if self.counting:
            assert self.collectives is not None
            self._stop_counting()
            self.numbered = begun == self.collectives.all
        elif measured and images == self.first_images:
            self.collectives_seen.add(begun)

    def _stop_counting(self) -> None:
        assert self.collectives is not None
        self.collectives.__exit__(None, None, None)
        self.counting = False

    def windows(self) -> dict[str, list[Value]]:
        marked, self.marked = self.marked, []
        waits, self.waits = self.waits, []
        exposed = list(map(self.clock.seconds, marked[::2], marked[1::2])) if self.several else [0.0] * len(waits)
        spans = zip(self.clock.spans, exposed, waits, strict=True)
        self.read = [(exposed_s, step_s - exposed_s - wait_s) for step_s, exposed_s, wait_s in spans]
        return {"exposed_communication_s": list(exposed) if self.several else [None] * len(exposed)}

    def windows_decided(self, measured: Sequence[bool]) -> None:
        for (exposed_s, compute_s), counts in zip(self.read, measured, strict=True):
            self.exposed_s += exposed_s * counts
            self.compute_s += compute_s * counts

    def totals(self) -> dict[str, Value]:
        found = self._counted()
        return {
            "measured_exposed_s": self.exposed_s if self.several else None,
            "measured_compute_s": self.compute_s,
            "allreduces_per_window": found.allreduces if found else None,
            "allreduce_bytes_per_window": found.allreduce_bytes if found else None,
        }

    def _counted(self) -> Collectives | None:
        """The count, if it holds for the measured windows: by their sequence numbers where those count each collective;
        else at least all windows must have had equal ones."""
        if self.collectives is None or self.counting or not self.collectives_seen:
            return None
        seen = self.collectives_seen
        alike = seen == {self.collectives.allreduces} if self.numbered else len(seen) == 1
        return self.collectives if alike else None

    def derive(self, span: Span) -> dict[str, Value]:
        windows = span.totals["measured_windows"]
        values = {
            "exposed_communication_s": ratio(span.totals["measured_exposed_s"], windows),
            "compute_s": ratio(span.totals["measured_compute_s"], windows),
        }
        if span.epochs is None:
            return values
        counts = ("allreduces_per_window", "allreduce_bytes_per_window")
        return values | {name: span.totals[name] for name in counts}

    def end(self) -> None:
        if self.counting:
            self._stop_counting()
