"""The script that measures speed: that its contenders run and do equal work, and that it finds a planted cost."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from bench.probes import Probe
from bench.training.windows import epoch_windows

from . import contenders, speed
from .contenders import Enough, Pace
from .probe_cost import Switched, Turn, median_interval, pairs


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize(
    ("loop", "precision"), [("ours", "bf16"), ("plain", "no"), ("accelerate", "bf16"), ("lightning", "bf16")]
)
def test_each_contender_trains(loop: str, precision: str) -> None:
    if loop == "lightning" and not find_spec("lightning"):
        pytest.skip("Lightning is not installed; pip install -e '.[perf]'")
    changes: Any = {"model": "resnet8", "micro_batch": 4, "accumulate": 2}
    trial = dataclasses.replace(speed.small(16, precision), **changes)
    pace = Pace(contenders.device_for(), wanted=3)
    with pytest.raises(Enough):
        getattr(contenders, loop)(trial, 16)(pace)
    assert len(pace.seconds) == 3  # of two windows an epoch
    assert min(pace.seconds) > 0


@pytest.mark.parametrize("race", [speed.resnet20, speed.frameworks, speed.resnet152])
def test_the_contenders_of_a_race_do_equal_work(race: Callable[[], speed.Race]) -> None:
    found = race()
    names = [contender.name for contender in found.contenders]
    assert {name for pair in found.pairs for name in (pair.faster, pair.slower)} <= set(names)
    works = {(c.trial.model, c.trial.image_size, c.trial.augment, c.trial.effective_batch()) for c in found.contenders}
    assert len(works) == 1


class ThreeWindows:
    """Turns of three windows after the first one."""

    windows = 1

    def hand_over(self, window_s: float | None) -> None:
        assert window_s is not None
        time.sleep(0.03)  # the turns of others
        self.windows = 3


def test_a_turn_is_timed_without_those_of_others() -> None:
    turns: Any = ThreeWindows()
    pace = Pace(torch.device("cpu"), wanted=3, turns=turns)
    said = []
    with contextlib.suppress(Enough):
        while True:
            time.sleep(0.002)
            said.append(pace())
    assert said == [3, 3, 3, 3, 3, 3]  # the first turn had one window, and the end of the third raises
    assert all(seconds >= 0.002 for seconds in pace.seconds)


def test_the_ratio_is_of_neighbouring_turns_and_its_interval_of_rounds() -> None:
    """A machine that is two to nine times as slow for seconds, and launches that differ by 1%."""
    draw = random.Random(0)
    rounds = []
    for _ in range(8):
        slowness = [draw.uniform(1, 9) if turn // 10 % 2 else 1.0 for turn in range(40)]
        launch = draw.gauss(1.5, 0.015)
        ours = [9.0, 9.0, *(slow * draw.gauss(0.1, 0.003) for slow in slowness)]
        rounds.append(
            {"ours": ours, "plain": [1.0, 1.0, *(slow * draw.gauss(0.1, 0.003) * launch for slow in slowness)]}
        )
    row = speed.row_of("case", speed.Pair("ours", "plain", 1.4), rounds, warmup=2)
    assert row.low < 1.5 < row.high
    assert row.high / row.low < 1.04
    assert row.low <= row.ratio <= row.high
    assert row.met
    assert not speed.row_of("case", speed.Pair("ours", "plain", 1.6), rounds, warmup=2).met


class Slow(Probe):
    """Costs a known time."""

    def micro_batch_end(self, loss_sum: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        time.sleep(0.002)


def test_switched_counts_a_probe_s_cost_in_its_own_turns() -> None:
    meter = Switched([Slow()], lambda numbers: [numbers], 0, torch.device("cpu"), write=lambda rows: None)
    meter.epoch_begin()
    nothing = torch.zeros(())
    for window in epoch_windows(10_000, 1, 1, 1, 0):
        meter.block = 3
        meter.micro_batch_end(nothing, nothing, nothing)
        assert meter.window_end(window, {}) == []
        if len(meter.timed_turns) == 8:
            break
    assert [turn.on for turn in meter.timed_turns] == [True, False, False, True] * 2
    assert [turn.windows for turn in meter.timed_turns] == [3] * 8
    assert all(0.002 <= turn.inside_s <= turn.window_s for turn in meter.timed_turns if turn.on)
    assert all(turn.inside_s == 0 for turn in meter.timed_turns if not turn.on)


def test_pairs_are_neighbours_and_the_median_has_an_interval() -> None:
    turns = [Turn(on, 1, float(number), 0.0) for number, on in enumerate([True, False, False, True])]
    assert [(on.window_s, off.window_s) for on, off in pairs(turns)] == [(0.0, 1.0), (3.0, 2.0)]
    median, low, high = median_interval([1.0, 1.0, 1.0, 1.1, 0.9] * 10)
    assert low <= median == 1.0 <= high
