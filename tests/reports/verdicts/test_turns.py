"""Launches that took turns on a machine whose speed the test knows: what is planted comes out, and not the machine."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_turns import gate

from reports.cli import main
from reports.verdicts import turns

Compared = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def compared(tmp_path: Path) -> Compared:
    """(exit code, metric -> its comparison) of a base and a head that is slower by a factor."""

    def compare(factor: float, pairs: int = 8, **more: Any) -> tuple[int, dict[str, Any]]:
        gate(tmp_path, pairs, factor, random.Random(5), **more)
        words = [str(tmp_path / "base"), str(tmp_path / "head"), "--margin", "1%", "--level", "0.01"]
        with pytest.raises(SystemExit) as ended:
            main(["compare", *words, "--json", str(tmp_path / "found.json")])
        found = json.loads((tmp_path / "found.json").read_text())["comparisons"]
        assert isinstance(ended.value.code, int)
        return ended.value.code, {each["metric"]: each for each in found}

    return compare


@pytest.mark.parametrize("planted", [0.03, 0.10])
def test_what_is_planted_is_what_comes_out(
    planted: float, compared: Compared, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = compared(1 + planted)
    assert code == 1
    for metric in ("step_time_p50_s", "step_cpu_time_p50_s"):
        assert found[metric]["verdict"] == "regressed"
        assert found[metric]["change"] == pytest.approx(planted, rel=0.1)
    assert found["images_per_s"]["in_turns"]
    assert found["images_per_s"]["change"] < 0
    said = capsys.readouterr().out
    assert "8 pairs in turns" in said
    assert "the change is the mean over the pairs of the middle of their turns" in said


def test_equal_code_is_equal_on_any_machine(compared: Compared) -> None:
    code, found = compared(1.0, pairs=16)
    assert code == 0
    assert {each["verdict"] for each in found.values()} == {"equivalent"}


def test_launches_whose_partner_is_another_are_compared_as_wholes(compared: Compared) -> None:
    _, found = compared(1.1, turns_with="somebody")
    assert not any(each["in_turns"] for each in found.values())
    assert found["step_time_p50_s"]["verdict"] == "inconclusive"


def test_what_slows_few_turns_down_shows_in_the_throughput_alone() -> None:
    base = dict.fromkeys(range(20), 0.01)
    head = {turn: 0.01 * (2 if turn % 5 == 0 else 1) for turn in range(20)}
    assert turns.change(base, head) == 0
    assert turns.speed_change(base, head) == pytest.approx(-2 * math.log(2) / 16)  # two of twenty are cut off each end
    assert turns.speed_change(base, {**base, 3: 1.0, 4: 1e-4}) == pytest.approx(0)
    assert turns.speed_change(base, {1: 0.01}) is None


def test_the_change_of_a_pair_is_the_middle_of_the_turns_that_both_measured() -> None:
    base = dict.fromkeys(range(10), 0.01)
    head = dict.fromkeys(range(4, 14), 0.011) | {5: 1.0}
    assert turns.change(base, head) == pytest.approx(math.log(1.1))
    assert turns.change(base, dict.fromkeys(range(6, 14), 0.011)) is None, "four turns are too few"


def test_the_middle_is_that_of_all_pairs_of_values_as_by_hand() -> None:
    """The means of 1, 2 and 6: 1, 1.5, 2, 3.5, 4, 6."""
    assert turns.middle([6.0, 1.0, 2.0]) == pytest.approx(2.75)
    assert turns.middle([3.0]) == 3.0


def test_the_middle_is_that_of_the_truth_and_spreads_less_than_the_median() -> None:
    draw = np.random.default_rng(0)
    samples = [draw.normal(0.02, 0.07, 97).tolist() for _ in range(400)]
    middles = [turns.middle(sample) for sample in samples]
    assert np.mean(middles) == pytest.approx(0.02, abs=0.001)
    assert np.std(middles) < 0.9 * np.std([np.median(sample) for sample in samples])
    assert turns.middle(draw.normal(0.02, 0.07, 50_000).tolist()) == pytest.approx(0.02, abs=0.01)
