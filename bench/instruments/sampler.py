"""Reads gauges from a thread of its own, and adds up over counted time what they show. Imports no torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping

Reading = Mapping[str, float | None]
# Five times a second: a power reading is itself a mean over some 0.1 s, and a sample, which may wait 5 ms on a Jetson
# (its sensors hang on an I2C bus) but keeps Python below 0.5 ms of them, must stay below 0.5% of the time.
INTERVAL_S = 0.2


class Sampler:
    """`read` answers with a value for each gauge, None for one that does not answer; it must not raise.

    Over counted time `counters` gain what they advanced, `integrals` their trapezoids in unit x s, `lasting` ones the
    rectangles of the lower end, so that what one sample alone shows is nothing, and "time_s" the seconds. `peaks` run
    all the time. A gauge that once failed to answer where it counted is None from then on: what it would have shown is
    not known.
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
        self.counters, self.integrals, self.lasting = tuple(counters), tuple(integrals), tuple(lasting)
        names = (*self.counters, *self.integrals, *self.lasting, "time_s")
        self.counted: dict[str, float | None] = dict.fromkeys(names, 0.0)
        self.counting = False
        self.lock, self.stopped = threading.Lock(), threading.Event()
        # A daemon: a process that fails leaves at once, without asking anyone to stop.
        self.thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.last_s, self.last = clock(), read()
        self.peaks: dict[str, float | None] = {name: self.last.get(name) for name in peaks}

    def start(self) -> None:
        """Sample every INTERVAL_S until `stop`."""
        self.thread.start()

    def stop(self) -> None:
        """End the thread, and wait until it has: not for ever, since a driver that hangs must not hold up a row."""
        self.stopped.set()
        self.thread.join(timeout=5)

    def count(self, counting: bool) -> None:
        """From now on count, or do not; the time until now ends with a sample."""
        with self.lock:
            self._sample()
            self.counting = counting

    def sample(self) -> None:
        """Read the gauges now."""
        with self.lock:
            self._sample()

    def totals(self) -> tuple[dict[str, float | None], dict[str, float | None]]:
        """(what was counted, the peaks) up to the last sample."""
        with self.lock:
            return dict(self.counted), dict(self.peaks)

    def _run(self) -> None:
        while not self.stopped.wait(INTERVAL_S):
            self.sample()

    def _sample(self) -> None:
        then_s, then = self.last_s, self.last
        self.last_s, self.last = self.clock(), self.read()
        if self.counting:
            elapsed_s = self.last_s - then_s
            self._gain("time_s", elapsed_s)
            for name in self.counters:
                self._gain(name, _both(then.get(name), self.last.get(name), lambda a, b: b - a))
            for name in self.integrals:
                self._gain(name, _both(then.get(name), self.last.get(name), lambda a, b: (a + b) / 2 * elapsed_s))
            for name in self.lasting:
                self._gain(name, _both(then.get(name), self.last.get(name), lambda a, b: min(a, b) * elapsed_s))
        for name, peak in self.peaks.items():
            self.peaks[name] = _both(peak, self.last.get(name), max)

    def _gain(self, name: str, gained: float | None) -> None:
        self.counted[name] = _both(self.counted[name], gained, lambda a, b: a + b)


def _both(a: float | None, b: float | None, of: Callable[[float, float], float]) -> float | None:
    return None if a is None or b is None else of(a, b)
