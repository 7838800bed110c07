"""The meter: what it makes of what probes say, with probes and ranks planted."""

import itertools
import math
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch

from bench.instruments.clock import Clock
from bench.probes import Aggregation, Probe, Span, Value, combine, communication, ratio, timing
from bench.probes.timing import percentile, spread
from bench.training.meter import Meter
from bench.training.windows import Window

CPU = torch.device("cpu")


class Planted(Probe):
    """Says that a window took so long, and counts what it was told to."""

    TOTALS: ClassVar[dict[str, Aggregation]] = {
        "measured_time_s": ("counter", "max"),
        "seen": ("counter", "sum"),
        "peak_rss_bytes": ("peak", "max"),
    }

    def __init__(self, step_time_s: float = 5.0) -> None:
        self.step_time_s, self.pending = step_time_s, 0
        self.count: dict[str, Value] = {"measured_time_s": 0.0, "seen": 0.0, "peak_rss_bytes": None}

    def window_end(self, images: int, measured: bool) -> None:
        self.pending += 1

    def windows(self) -> dict[str, list[Value]]:
        done, self.pending = self.pending, 0
        return {"step_time_s": [self.step_time_s] * done}

    def totals(self) -> dict[str, Value]:
        return dict(self.count)

    def derive(self, span: Span) -> dict[str, Value]:
        return {name: span.totals[name] for name in self.TOTALS}


def run_epoch(meter: Meter, windows: int, images: int = 4) -> tuple[list[int], dict[str, Any]]:
    """(how many rows came after each window and at the epoch's end, the epoch's row)"""
    for _ in meter.timed(iter(range(1))):
        pass
    counts = []
    for number in range(windows):
        counts.append(len(meter.window_end(Window(number, images, []), {})))
        if counts[-1]:
            meter.resume()
    rows, epoch = meter.epoch_end({})
    return [*counts, len(rows)], epoch


def alone(numbers: list[float]) -> list[list[float]]:
    return [numbers]


def beside(*others: float) -> Any:
    """A gather for a probe whose every time is another on the other ranks, and whose windows are all alike."""

    def gather(numbers: list[float]) -> list[list[float]]:
        return [numbers, *([other if number else 0.0 for number in numbers] for other in others)]

    return gather


@pytest.mark.parametrize("windows", [1, 2, 3])
def test_windows_longer_than_a_block_are_read_one_by_one_in_every_epoch(windows: int) -> None:
    meter = Meter([Planted(step_time_s=5.0)], alone, 0, CPU)
    for _ in range(3):
        assert run_epoch(meter, windows)[0] == [1] * windows + [0]


def test_short_windows_are_read_in_blocks_of_a_second() -> None:
    meter = Meter([Planted(step_time_s=0.25)], alone, 0, CPU)
    assert run_epoch(meter, 10)[0] == [1, 0, 0, 0, 4, 0, 0, 0, 4, 0, 1]
    assert run_epoch(meter, 6)[0] == [0, 0, 0, 4, 0, 0, 2]


def test_a_window_takes_as_long_as_on_the_slowest_rank() -> None:
    meter = Meter([Planted(step_time_s=5.0)], beside(3.0, 7.0), 0, CPU)
    run_epoch(meter, 2)
    assert [row["step_time_s"] for row in meter.measured] == [7.0, 7.0]


def test_each_rank_s_own_difference_is_taken_before_the_ranks_are_combined() -> None:
    """Rank 0 is slow in the first epoch, rank 1 in the second: 5 s each, where 10 s less 5 s would be said."""
    clock = [0.0, 0.0]
    probe = Planted()

    def gather(numbers: list[float]) -> list[list[float]]:
        ranks = []
        for seconds in clock:
            probe.count["measured_time_s"] = seconds
            totals = [seconds, 0.0, 0.0, 0.0]
            ranks.append(totals if len(numbers) == len(totals) else numbers)
        return ranks

    meter = Meter([probe], gather, 0, CPU)
    clock[:] = [5.0, 1.0]
    assert run_epoch(meter, 1)[1]["measured_time_s"] == 5.0
    clock[:] = [6.0, 6.0]
    assert run_epoch(meter, 1)[1]["measured_time_s"] == 5.0
    assert meter.trial()["measured_time_s"] == 6.0


def test_counters_are_differences_and_peaks_stay() -> None:
    probe = Planted()
    meter = Meter([probe], alone, 0, CPU)
    probe.count |= {"seen": 10.0, "peak_rss_bytes": 700.0}
    assert run_epoch(meter, 1)[1] | {"measured_time_s": 0} == {"measured_time_s": 0, "seen": 10, "peak_rss_bytes": 700}
    probe.count |= {"seen": 14.0}
    assert run_epoch(meter, 1)[1]["seen"] == 4.0
    assert meter.trial()["peak_rss_bytes"] == 700
    assert isinstance(meter.trial()["peak_rss_bytes"], int)


def test_what_one_rank_cannot_measure_is_nothing_for_all() -> None:
    meter = Meter([Planted()], lambda numbers: [numbers, [-math.inf] * len(numbers)], 0, CPU)
    _, epoch = run_epoch(meter, 2)
    assert epoch == {"measured_time_s": None, "seen": None, "peak_rss_bytes": None}
    assert [row["step_time_s"] for row in meter.measured] == [None, None]


def test_a_loss_that_is_not_finite_is_no_missing_measurement() -> None:
    class Losses(Planted):
        def windows(self) -> dict[str, list[Value]]:
            return {"train_loss": [math.nan, math.inf]}

    meter = Meter([Losses()], alone, 0, CPU)
    meter.block = 2
    run_epoch(meter, 2)
    assert math.isnan(meter.measured[0]["train_loss"])
    assert meter.measured[1]["train_loss"] == math.inf


@pytest.mark.parametrize(("warmup", "measured"), [(0, 5), (2, 3), (4, 1), (5, 0), (9, 0)])
def test_the_first_windows_of_the_trial_are_run_and_not_measured(warmup: int, measured: int) -> None:
    meter = Meter([Planted()], alone, warmup, CPU)
    run_epoch(meter, 3)
    run_epoch(meter, 2)
    assert len(meter.measured) == measured


def flagged(meter: Meter) -> list[bool]:
    """Run two epochs of three windows of micro-batches 4, 4 and 2; whether each is measured."""
    kept: list[dict[str, Any]] = []
    for _ in range(2):
        for _ in meter.timed(iter(range(1))):
            pass
        for number, size in enumerate((4, 4, 2)):
            window = Window(number, size, [(0, size)])
            meter.window_begin(window)
            kept += meter.window_end(window, {})
        kept += meter.epoch_end({})[0]
    return [row["measured"] for row in kept]


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [(0, [True] * 6), (1, [False, True, False, True, True, True]), (4, [False] * 4 + [True] * 2)],
)
def test_with_a_warm_up_the_first_window_of_each_size_is_not_measured(warmup: int, expected: list[bool]) -> None:
    assert flagged(Meter([Planted()], alone, warmup, CPU)) == expected


def test_what_is_not_measured_on_one_rank_is_on_none() -> None:
    """Another rank's second and sixth windows are none like the others."""
    windows = itertools.count()

    def gather(numbers: list[float]) -> list[list[float]]:
        if len(numbers) != 2:  # its totals, or nothing at all
            return [numbers, numbers]
        return [numbers, [5.0, float(next(windows) in (1, 5))]]

    meter = Meter([Planted(step_time_s=5.0)], gather, 1, CPU)
    assert flagged(meter) == [False, False, False, True, True, False]


@pytest.mark.parametrize(
    ("device", "windows", "measured"),
    [("cpu", 6, [1, 3, 4, 5]), ("cuda", 100, [4, 5]), ("cuda", 6, [3, 4, 5]), ("cuda", 2, [1, 3, 4, 5])],
)
def test_on_a_gpu_warm_up_lasts_a_second_too_but_for_half_of_the_windows_at_most(
    device: str, windows: int, measured: list[int]
) -> None:
    """Of a quarter of a second each; the third is the first of its size."""
    meter = Meter([Planted(step_time_s=0.25)], alone, 1, torch.device(device), windows)
    meter.clock = Clock()  # the host's: there need be no GPU
    assert [number for number, counts in enumerate(flagged(meter)) if counts] == measured


def test_without_probes_there_is_nothing_and_no_error() -> None:
    meter = Meter([], alone, 0, CPU)
    assert run_epoch(meter, 3)[1] == {}
    assert set(meter.trial()) == {"probe_time_s"}


def test_only_columns_of_the_trials_file_reach_it() -> None:
    meter = Meter([Planted()], alone, 0, CPU)
    run_epoch(meter, 1)
    assert set(meter.trial()) == {"measured_time_s", "peak_rss_bytes", "probe_time_s"}


READ_S, WINDOW_S = 0.05, 0.01


class Reading(Probe):
    """Takes READ_S for each of its answers, on a clock that nothing else moves."""

    TOTALS: ClassVar[dict[str, Aggregation]] = {"seen": ("counter", "sum")}

    def __init__(self, now: list[float]) -> None:
        self.now, self.answers = now, 0

    def epoch_begin(self) -> None:
        self.answers += 1
        self.now[0] += READ_S

    def epoch_end(self) -> None:
        self.epoch_begin()

    def windows(self) -> dict[str, list[Value]]:
        self.epoch_begin()
        return {}

    def totals(self) -> dict[str, Value]:
        self.epoch_begin()
        return {"seen": 0.0}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_reading_a_probe_takes_is_in_probe_time_and_in_no_other(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    slow = Reading(now)
    probes: list[Probe] = [communication.Probe(), timing.Probe()]
    probes.insert(place, slow)
    meter = Meter(probes, alone, 0, CPU)
    set_up = slow.answers
    for _ in range(2):
        meter.epoch_begin()
        for number in range(3):
            now[0] += WINDOW_S
            if meter.window_end(Window(number, 4, []), {}):
                meter.resume()
        _, epoch = meter.epoch_end({})
        assert epoch["images_per_s"] == pytest.approx(4 / WINDOW_S)
        assert epoch["epoch_time_s"] == pytest.approx(3 * WINDOW_S)
        assert epoch["compute_s"] == pytest.approx(WINDOW_S)
        now[0] += 7.0  # an evaluation
    trial = meter.trial()
    assert [row["step_time_s"] for row in meter.measured] == pytest.approx([WINDOW_S] * 6)
    assert (trial["images_per_s"], trial["compute_s"]) == pytest.approx((4 / WINDOW_S, WINDOW_S))
    assert slow.answers - set_up > 10
    assert trial["probe_time_s"] == pytest.approx(READ_S * (slow.answers - set_up))


@pytest.mark.parametrize(
    ("how", "values", "result"),
    [
        ("max", [1.0, 3.0, 2.0], 3.0),
        ("sum", [1.0, 3.0, 2.0], 6.0),
        ("sum", [0.0], 0.0),
        ("max", [-1.0], -1.0),
        ("max", [1.0, None], None),
        ("sum", [None, 1.0], None),
        ("sum", [None, None], None),
        ("max", [], None),
        ("sum", [], None),
    ],
)
def test_combine(how: str, values: Sequence[Value], result: Value) -> None:
    assert combine(how, values) == result


def test_ratio_of_nothing_is_nothing() -> None:
    assert ratio(6.0, 3.0) == 2.0
    assert ratio(0.0, 3.0) == 0.0
    assert ratio(6.0, 0.0) is ratio(None, 3.0) is ratio(6.0, None) is None


def test_percentiles_and_spread_by_hand() -> None:
    assert [percentile([4.0, 1.0, 3.0, 2.0, 5.0], q) for q in (0, 50, 90, 100)] == [1.0, 3.0, pytest.approx(4.6), 5.0]
    assert percentile([], 50) is None
    windows = [{"images": 8, "step_time_s": time, "cpu_time_s": 2 * time} for time in (1.0, 2.0, 3.0)]
    found = spread([*windows, {"images": 3, "step_time_s": 99.0, "cpu_time_s": 99.0}])
    times = {"step_time_p50_s": 2.0, "step_time_p90_s": 2.8, "step_time_p99_s": 2.98, "step_time_cv": 0.5}
    assert found == pytest.approx({**times, "step_cpu_time_p50_s": 4.0})
    one = spread([{"images": 8, "step_time_s": 1.0, "cpu_time_s": None}])  # as on a GPU
    assert (one["step_time_p50_s"], one["step_time_cv"], one["step_cpu_time_p50_s"]) == (1.0, None, None)
    assert set(spread([]).values()) == {None}
