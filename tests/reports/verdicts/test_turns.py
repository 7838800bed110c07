"""Launches that took turns on a machine whose speed the test knows: what is planted comes out, and not the machine."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted_rows import plant

from bench.record.run_folder import RunFolder
from reports.cli import main
from reports.verdicts import turns

PAIRS, TURNS = 8, 60


def weather(draw: random.Random) -> list[float]:
    """How much slower the machine is in each turn: by up to three times, slowly changing, with sudden peaks."""
    phase = draw.uniform(0, 6.28)
    slow = [2 + math.sin(phase + turn / 10) for turn in range(TURNS)]
    return [factor * (draw.choice([1, 1, 1, 1, 1, 1, 1, 1, 1, 4])) for factor in slow]


def run(folder: Path, factor: float, draw: random.Random, other: str, same: list[list[float]], **more: Any) -> None:
    """A run folder of launches that took turns with those of `other`; `same`: the machine in each pair's turns."""
    for number in range(PAIRS):
        launch = f"{folder.name}{number}"
        row = {"launch_id": launch, "turns_with": f"{other}{number}", "repeat": number, "device_name": "cpu"}
        level = math.exp(draw.gauss(0, 0.003))  # what differs between launches, such as where memory lies
        rows = []
        for turn, seen in enumerate(same[number]):
            for window in range(2):
                step_s = 0.01 * factor * level * seen * math.exp(draw.gauss(0, 0.02))
                cpu_s = 0.009 * factor * level * math.exp(draw.gauss(0, 0.01))
                rows.append(
                    {
                        "launch_id": launch,
                        "epoch": 0,
                        "window": 2 * turn + window,
                        "images": 16,
                        "measured": turn >= 3,
                        "turn": turn,
                        "step_time_s": step_s if turn >= 3 else 9.0,
                        "cpu_time_s": cpu_s,
                    }
                )
        rows.append({**rows[-1], "window": 2 * TURNS, "images": 3, "step_time_s": 1e-6})  # an epoch's last, short step
        RunFolder(folder).prepare()
        RunFolder(folder).append("steps", rows)
        # What each launch says as a whole is of the machine.
        p50 = draw.uniform(0.01, 0.04)
        plant(folder, row | {"step_time_p50_s": p50, "step_cpu_time_p50_s": p50, "images_per_s": 16 / p50} | more)


Compared = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def compared(tmp_path: Path) -> Compared:
    """(exit code, metric -> its comparison) of a base and a head that is slower by a factor."""

    def compare(factor: float, **more: Any) -> tuple[int, dict[str, Any]]:
        draw = random.Random(5)
        same = [weather(draw) for _ in range(PAIRS)]
        run(tmp_path / "base", 1.0, draw, "head", same)
        run(tmp_path / "head", factor, draw, "base", same, **more)
        words = [str(tmp_path / "base"), str(tmp_path / "head"), "--margin", "1%", "--level", "0.01"]
        with pytest.raises(SystemExit) as ended:
            main(["compare", *words, "--json", str(tmp_path / "found.json")])
        found = json.loads((tmp_path / "found.json").read_text())["comparisons"]
        assert isinstance(ended.value.code, int)
        return ended.value.code, {each["metric"]: each for each in found}

    return compare


@pytest.mark.parametrize("planted", [0.03, 0.10])
def test_what_is_planted_is_what_comes_out(planted: float, compared: Compared) -> None:
    code, found = compared(1 + planted)
    assert code == 1
    for metric in ("step_time_p50_s", "step_cpu_time_p50_s"):
        assert found[metric]["verdict"] == "regressed"
        assert found[metric]["change"] == pytest.approx(planted, rel=0.1)
    assert "images_per_s" not in found, "it would say the same once more"


def test_equal_code_is_equal_on_any_machine(compared: Compared) -> None:
    code, found = compared(1.0)
    assert code == 0
    assert found["step_time_p50_s"]["verdict"] == found["step_cpu_time_p50_s"]["verdict"] == "equivalent"


def test_launches_whose_partner_is_another_are_compared_as_wholes(compared: Compared) -> None:
    _, found = compared(1.1, turns_with="somebody")
    assert "images_per_s" in found
    assert found["step_time_p50_s"]["verdict"] == "inconclusive"


def test_the_change_of_a_pair_is_the_median_over_the_turns_that_both_measured() -> None:
    base = dict.fromkeys(range(10), 0.01)
    head = dict.fromkeys(range(4, 14), 0.011) | {5: 1.0}
    assert turns.change(base, head) == pytest.approx(math.log(1.1))
    assert turns.change(base, dict.fromkeys(range(6, 14), 0.011)) is None, "four turns are too few"
