"""The script that measures whole trainings: its contenders do the work that they are said to, in times of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from . import features
from .features import Clock, Result, digits, race, random_weights, rows_of, timed

SMALL: dict[str, Any] = {"model": "resnet8", "image_size": 32, "micro_batch": 16, "epochs": 5}


@pytest.mark.usefixtures("fresh_accelerate")
def test_each_trains_to_its_end_and_features_change_no_accuracy(tmp_path: Path) -> None:
    """Of 48 digits 40 are trained on, in 3 batches, and 8 tested on, in one; both outcomes of 40 are 5 batches."""
    contenders = race(tmp_path / "weights.pt", **SMALL)
    data = digits(contenders[0].trial, 48)
    random_weights(contenders[0].trial, data, tmp_path / "weights.pt")
    handed: dict[str, int] = {}

    def result(contender: Any) -> Result:
        spans: list[float] = []
        found = timed(contender, data, lambda: None, spans.append)
        handed[contender.name] = len(spans)
        return found

    plain, bn_eval, once = map(result, contenders)
    assert [each.batches for each in (plain, bn_eval, once)] == [20, 20, 6]
    assert once.accuracy == bn_eval.accuracy
    assert set(handed.values()) == {features.TURNS - 1}
    assert all(each.seconds > 0 for each in (plain, bn_eval, once))


def test_the_turns_of_others_are_no_time_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches take 1 s, a turn of others 100 s."""
    now = [0.0]
    monkeypatch.setattr(features, "seconds_on", lambda device: now[0])

    def others(batch_s: float) -> None:
        now[0] += 100.0

    clock = Clock(3 * features.TURNS, others)
    clock.start()
    for _ in range(3 * features.TURNS):
        now[0] += 1.0
        clock.on_batch()
    assert clock.stop() == 3.0 * features.TURNS
    assert now[0] == 3.0 * features.TURNS + 100.0 * (features.TURNS - 1)


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    rounds = [
        {name: Result(seconds, 0.9, 1) for name, seconds in zip(features.NAMES, (plain, 5.0, 2.0), strict=True)}
        for plain in (20.0, 24.0, 30.0)
    ]
    found = {row.what.split(",")[0]: (row.ratio, row.low, row.high, row.met) for row in rows_of(rounds)}
    assert found == {
        "features_once / plain fp32": (12.0, 10.0, 15.0, True),
        "features_once / ours bn_eval bf16": (2.5, 2.5, 2.5, True),
    }
