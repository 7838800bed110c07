"""The sampler: planted gauges at planted times, and the sums that these have by hand."""

import threading
import time
from collections.abc import Sequence

import pytest

from bench.instruments import sampler as instrument
from bench.instruments.sampler import Reading, Sampler

GAUGES = (["energy_j"], ["power_w"], ["temperature_c"])  # counted by difference, by integral, and peaks


def planted(readings: Sequence[Reading | None], times: Sequence[float]) -> Sampler:
    """A sampler that will see these readings at these times, and has seen the first; None: nothing answers."""
    pairs = iter([{} if reading is None else reading for reading in readings])
    clock = iter(times)
    return Sampler(lambda: next(pairs), *GAUGES, clock=lambda: next(clock))


def reading(energy_j: float, power_w: float, temperature_c: float = 50.0) -> Reading:
    return {"energy_j": energy_j, "power_w": power_w, "temperature_c": temperature_c}


def test_counted_time_is_added_up_by_trapezoids_and_differences() -> None:
    """Power 10, 30, 20 W at 1, 3 and 4 s: 40 J and 25 J. The counter went from 7 to 52."""
    sampler = planted([reading(0, 99), reading(7, 10), reading(40, 30), reading(52, 20)], [0.0, 1.0, 3.0, 4.0])
    sampler.count(True)
    sampler.sample()
    sampler.count(False)
    assert sampler.totals()[0] == {"energy_j": 45.0, "power_w": 65.0, "time_s": 3.0}


def test_time_that_is_not_counted_leaves_nothing_but_its_peaks() -> None:
    sampler = planted(
        [reading(0, 10), reading(5, 10, 90), reading(9, 10), reading(30, 10), reading(31, 10)], [0, 1, 2, 3, 4]
    )
    sampler.sample()
    assert sampler.totals() == ({"energy_j": 0, "power_w": 0, "time_s": 0}, {"temperature_c": 90})
    sampler.count(True)
    sampler.count(False)
    sampler.sample()
    assert sampler.totals() == ({"energy_j": 21, "power_w": 10, "time_s": 1}, {"temperature_c": 90})


def test_a_gauge_that_failed_once_is_unknown_from_then_on_and_the_others_go_on() -> None:
    without = {"power_w": 10.0, "temperature_c": 50.0}
    sampler = planted([reading(0, 10), reading(0, 10), without, reading(9, 10), reading(9, 10)], [0, 1, 2, 3, 4])
    sampler.count(True)
    for _ in range(3):
        sampler.sample()
    assert sampler.totals() == ({"energy_j": None, "power_w": 30, "time_s": 3}, {"temperature_c": 50})


def test_a_device_that_is_gone_is_unknown_in_all_but_time() -> None:
    sampler = planted([reading(0, 10), reading(0, 10), None, None], [0, 1, 2, 3])
    sampler.count(True)
    sampler.sample()
    sampler.sample()
    assert sampler.totals() == ({"energy_j": None, "power_w": None, "time_s": 2}, {"temperature_c": None})


def test_a_gauge_that_fails_where_nothing_is_counted_is_still_known() -> None:
    sampler = planted([reading(0, 10), None, reading(5, 10), reading(8, 10)], [0, 1, 2, 3])
    sampler.sample()
    sampler.count(True)
    sampler.count(False)
    assert sampler.totals() == ({"energy_j": 3, "power_w": 10, "time_s": 1}, {"temperature_c": None})


def test_what_lasts_counts_between_two_samples_that_both_show_it() -> None:
    """Slowed for a moment at 1 s, and from 3 s to 6 s."""
    slowed = iter([0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    times = iter([0.0, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0])
    sampler = Sampler(lambda: {"slowed": next(slowed)}, [], [], [], ["slowed"], lambda: next(times))
    sampler.counting = True
    found = []
    for _ in range(6):
        sampler.sample()
        found.append(sampler.totals()[0]["slowed"])
    assert found == [0.0, 0.0, 0.0, 2.0, 3.0, 3.0]


@pytest.mark.timeout(60)
def test_stopping_waits_for_a_sample_under_way() -> None:
    begun, ended = threading.Event(), threading.Event()

    def read() -> Reading:
        if threading.current_thread().name == "sampler":
            begun.set()
            time.sleep(0.3)
            ended.set()
        return reading(0, 10)

    sampler = Sampler(read, *GAUGES)
    sampler.start()
    assert begun.wait(timeout=30)
    sampler.stop()
    assert ended.is_set()
    assert not sampler.thread.is_alive()


@pytest.mark.timeout(60)
def test_the_thread_samples_by_itself_until_it_is_stopped() -> None:
    seen = threading.Semaphore(0)

    def read() -> Reading:
        seen.release()
        return reading(0, 10)

    sampler = Sampler(read, *GAUGES)
    sampler.start()
    for _ in range(4):  # one of them at the beginning, the others are the thread's
        assert seen.acquire(timeout=30)
    assert sampler.thread.daemon
    sampler.stop()
    assert not sampler.thread.is_alive()


@pytest.mark.timeout(60)
def test_what_the_thread_raises_the_trial_raises() -> None:
    """Its totals would otherwise stay as they were, and nobody would see that they are short."""

    def read() -> Reading:
        if threading.current_thread().name == "sampler":
            raise OSError("planted: the sensor is gone")
        return reading(0, 10)

    sampler = Sampler(read, *GAUGES)
    sampler.start()
    sampler.thread.join()
    for asked in (sampler.totals, sampler.sample, lambda: sampler.count(True)):
        with pytest.raises(RuntimeError, match=r"sampling the device failed: .*the sensor is gone") as raised:
            asked()
        assert isinstance(raised.value.__cause__, OSError)
    sampler.stop()


@pytest.mark.timeout(60)
def test_a_driver_that_does_not_answer_holds_up_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instrument, "ANSWER_S", 0.1)
    begun, answers = threading.Event(), threading.Event()

    def read() -> Reading:
        if threading.current_thread().name == "sampler":
            begun.set()
            answers.wait()
        return reading(0, 10)

    sampler = Sampler(read, *GAUGES)
    sampler.start()
    assert begun.wait(timeout=30)
    with pytest.raises(RuntimeError, match=r"gauges do not answer: a sample takes more than 0\.1 s"):
        sampler.totals()
    answers.set()
    sampler.stop()
