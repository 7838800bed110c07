"""The rounds of two benchmarks, each in a thread, take turns; no torch, and no process of their own."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from _pytest.outcomes import Exit

from bench.pytest_plugins import in_turns
from bench.variables import TURNS
from launch.gate.referee import referee


class Item:
    """Stands in for a test."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid, self.stash = nodeid, pytest.Stash()


class Benchmark:
    """Stands in for the fixture of pytest-benchmark."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}

    def pedantic(self, target: Callable[[], object], setup: Callable[[], object], rounds: int, iterations: int) -> None:
        for _ in range(rounds):
            setup()
            target()


def both(sides: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each side, in a thread of its own, returns or raises, while a referee grants the turns."""
    ended: list[Any] = [None, None]
    started = threading.Event()

    def run(number: int) -> None:
        try:
            ended[number] = sides[number]()
        except BaseException as error:  # Exit is none of Exception
            ended[number] = error

    with referee(["base", "head"], seed=1) as judge:
        threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in (0, 1)]
        for thread, place in zip(threads, judge.sides, strict=True):
            monkeypatch.setenv(TURNS, str(place.address))
            thread.start()
            while not place.connected and thread.is_alive():
                judge.serve(0.01)
        started.set()
        while any(thread.is_alive() for thread in threads):
            judge.serve(0.01)
    return ended


def side(step: Callable[[], object], rounds: int = 12, name: str = "test_a") -> tuple[Benchmark, Callable[[], object]]:
    benchmark = Benchmark()
    item: Any = Item(name)
    return benchmark, lambda: in_turns.take(item, benchmark, step, rounds, 1, True)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_turns, "SHORTEST_S", 0.0)


def test_rounds_take_turns_and_each_turn_has_its_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def step(name: str) -> None:
        order.append(name)
        time.sleep(0.015)

    sides = [side(functools.partial(step, name)) for name in ("base", "head")]
    assert both([run for _, run in sides], monkeypatch) == [None, None]
    base, head = (benchmark.extra_info["turns"] for benchmark, _ in sides)
    assert base["with"] == [head["launch_id"]]
    assert head["with"] == [base["launch_id"]]
    assert set(base["step_time_s"]) == set(head["step_time_s"]) == set(range(1, 13))
    assert all(each >= 0.015 for each in base["step_time_s"].values())
    assert all(0 < each < 0.015 for each in base["cpu_time_s"].values()), "a step that sleeps needs no CPU"
    # After a round of warm-up, of each side one round a turn, the calibrating one included.
    turns = order[2:]
    assert [sorted(turns[at : at + 2]) for at in range(0, 26, 2)] == [["base", "head"]] * 13
    assert turns != ["base", "head"] * 13


def test_a_short_step_has_several_rounds_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []
    sides = [side(lambda: rounds.append(1), rounds=5000) for _ in range(2)]
    assert both([run for _, run in sides], monkeypatch) == [None, None]
    turns = sides[0][0].extra_info["turns"]["step_time_s"]
    assert len(turns) < 2500
    assert len(rounds) == 2 * (1 + 1 + 5000)


def test_a_step_that_fails_lets_the_other_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [4]

    def fails() -> None:
        left[0] -= 1
        if not left[0]:
            raise ValueError("planted")

    sound, sound_run = side(lambda: time.sleep(0.001))
    _, broken_run = side(fails)
    first, second = both([sound_run, broken_run], monkeypatch)
    assert first is None
    assert isinstance(second, ValueError)
    assert sum(1 for _ in sound.extra_info["turns"]["step_time_s"]) >= 1


def test_a_gpu_without_room_for_both_ends_the_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    class OutOfMemoryError(Exception):
        """Stands in for torch's."""

    def fails() -> None:
        if len(rounds) > 3:
            raise OutOfMemoryError
        rounds.append(1)

    rounds: list[int] = []
    first, second = both([side(lambda: time.sleep(0.001), 10**6)[1], side(fails)[1]], monkeypatch)
    assert isinstance(first, Exit)
    assert "the launch of head ended before its time" in str(first)
    assert isinstance(second, OutOfMemoryError)


def test_a_test_that_one_side_skips_passes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    sound, run = side(lambda: time.sleep(0.001))
    item: Any = Item("test_a")
    monkeypatch.setenv(TURNS, "set below")
    assert in_turns.takes_part(item)
    assert both([run, lambda: in_turns.pass_by(item)], monkeypatch) == [None, None]
    assert "turns" in sound.extra_info
    assert not in_turns.takes_part(item)


def test_another_test_on_the_other_side_ends_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = [side(lambda: None, name=name)[1] for name in ("test_a", "test_b")]
    for error in both(sides, monkeypatch):
        assert isinstance(error, Exit)
        assert error.returncode == in_turns.ENDED_BY_OTHER
        assert "the sides have other settings" in str(error)


def test_without_a_gate_no_test_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TURNS, raising=False)
    item: Any = Item("test_a")
    assert not in_turns.takes_part(item)
