"""Communication between processes: what a window's step time is made of, and the all-reduces in it.

The all-reduces are counted from the operations that torch really dispatches, in the last warm-up window, since counting
costs time: DDP's buckets, which follow the order of the first window's gradients, gradient compression and `no_sync`
all show in them. The group's own sequence number, which costs nothing, says whether every measured window of that size
had as many; otherwise there is no count.
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
        "Of step_time_s, waited for the processes to share gradients, on the rank that waited longest.",
    ),
]
SPLIT = [
    Column(
        "exposed_communication_s",
        "float",
        "s",
        "max",
        "Mean time per measured window in which a rank has all its own gradients and not yet the shared ones: "
        "communication, or waiting for a slower rank; of the rank that waited longest. Empty for one process.",
    ),
    Column(
        "compute_s",
        "float",
        "s",
        "max",
        "Mean per measured window of a rank's step time less its data wait and exposed communication, of the rank "
        "with the most; on a GPU the least that it can be, since a wait for data may pass while the GPU works.",
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
        "All-reduces in a full window, counted in the last warm-up window and, where the backend numbers its "
        "collectives, confirmed for each measured one; empty: one process, warmup_windows below 2, or unlike windows.",
        shown=Shown("all-reduces\nper step", place=22),
    ),
    Column(
        "allreduce_bytes_per_window",
        "int",
        "bytes",
        "max",
        "Bytes that each rank gives to them; what crosses a link depends on the algorithm.",
        shown=Shown("MiB shared\nper step", 1 / 2**20, place=23),
    ),
]


class Probe(Base):
    """Marks when a rank's gradients are computed and when they are shared, on the device's time line."""

    TOTALS: ClassVar[dict[str, Aggregation]] = {
        "measured_exposed_s": ("counter", "max"),
        "measured_compute_s": ("counter", "max"),
        "allreduces_per_window": ("peak", "max"),
        "allreduce_bytes_per_window": ("peak", "max"),
    }

    def begin(self, device: torch.device) -> None:
        from bench.instruments.collectives import several_processes

        self.marked: list[Any] = []  # of each window: when its gradients were computed, when they were shared
        self.several = several_processes()
        self.exposed_s = self.compute_s = 0.0
        self.waits: list[float] = []  # each window's, for data
        self.read: list[tuple[float, float]] = []  # of the windows read last: exposed communication, compute
        self.wait_s = 0.0
        self.collectives: Collectives | None = None
        self.counting = False
        self.first_images = 0
        self.numbered = False  # each collective, by the group's sequence number
        self.collectives_seen: set[int] = set()  # in measured windows of that many images, by that number

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
        """What was counted, if the measured windows had as many; not numbered, they are at least to be all alike."""
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
