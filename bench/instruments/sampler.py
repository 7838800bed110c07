"""A thread that samples gauges and adds up their values over the measured time. Imports no torch."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

Reading = Mapping[str, float | None]
# Five times a second. More often would add little: a power reading is itself a mean over some 0.1 s. And samples must
# take below 0.5% of the time: on a Jetson, whose sensors are on an I2C bus, one waits up to 5 ms, of which it holds
# Python's lock for less than 0.5 ms.
INTERVAL_S = 0.2
# A driver that takes that long for a sample hangs.
ANSWER_S = 30.0


class Sampler:
    """Samples gauges. `read` returns a value for each, None for one that does not answer.

    What it raises in the thread, `count`, `sample` and `totals` raise too, as they do if it does not return.

    While counting, between two samples

    - `counters` gain the difference of the two values;
    - `integrals` gain the mean of the two values times the seconds (trapezoids);
    - `lasting` gauges gain the smaller value times the seconds, so that a value in one sample alone counts as nothing;
    - "time_s" gains the seconds.

    `peaks` are taken all the time. A gauge that fails to answer while counting is None from then on, since its total
    is unknown.
    """

    def __init__(
        self,
        read: Callable[[], Reading],
        counters: Iterable[str],
        integrals: Iterable[str],
        peaks: Iterable[str],
        lasting: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.read, self.clock = read, clock
        # Gauge -> what it gains between two samples, from its values in both and the seconds between them.
        self.gains: dict[str, Callable[[float, float, float], float]] = {
            **dict.fromkeys(counters, lambda before, after, seconds: after - before),
            **dict.fromkeys(integrals, lambda before, after, seconds: (before + after) / 2 * seconds),
            **dict.fromkeys(lasting, lambda before, after, seconds: min(before, after) * seconds),
        }
        self.counted: dict[str, float | None] = dict.fromkeys([*self.gains, "time_s"], 0.0)
        self.counting = False
        self.lock = threading.Lock()  # `count`, `sample` and `totals` are called from the thread that trains
        self.stopped = threading.Event()
        self.failure: BaseException | None = None
        # A daemon thread does not keep a failing process alive.
        self.thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.last_s, self.last = clock(), read()
        self.peaks: dict[str, float | None] = {name: self.last.get(name) for name in peaks}

    def start(self) -> None:
        """Sample every INTERVAL_S until `stop`."""
        self.thread.start()

    def stop(self) -> None:
        """End the thread. Waits for it, but at most 5 s: the row must be written even if a driver hangs."""
        self.stopped.set()
        self.thread.join(timeout=5)

    def count(self, counting: bool) -> None:
        """Start or stop counting. Takes a sample, which ends the time before it."""
        with self._locked():
            self._sample()
            self.counting = counting

    def sample(self) -> None:
        """Read the gauges now."""
        with self._locked():
            self._sample()

    def totals(self) -> tuple[dict[str, float | None], dict[str, float | None]]:
        """(totals of the counted time, peaks) up to the last sample."""
        with self._locked():
            return dict(self.counted), dict(self.peaks)

    def _run(self) -> None:
        try:
            while not self.stopped.wait(INTERVAL_S):
                self.sample()
        except BaseException as error:  # for the thread that trains, which would go on with old totals
            self.failure = error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self.failure is not None:
            raise RuntimeError(f"sampling the device failed: {self.failure!r}") from self.failure
        if not self.lock.acquire(timeout=ANSWER_S):
            raise RuntimeError(f"the device's gauges do not answer: a sample takes more than {ANSWER_S:g} s")
        try:
            yield
        finally:
            self.lock.release()

    def _sample(self) -> None:
        before_s, before = self.last_s, self.last
        self.last_s, self.last = self.clock(), self.read()
        if self.counting:
            seconds = self.last_s - before_s
            self._add("time_s", seconds)
            for name, gain in self.gains.items():
                first, second = before.get(name), self.last.get(name)
                self._add(name, None if first is None or second is None else gain(first, second, seconds))
        for name, peak in self.peaks.items():
            value = self.last.get(name)
            self.peaks[name] = None if peak is None or value is None else max(peak, value)

    def _add(self, name: str, gained: float | None) -> None:
        total = self.counted[name]
        self.counted[name] = None if total is None or gained is None else total + gained
