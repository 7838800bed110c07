"""Sides that note when they train: they never do so at once, and none waits for a turn that never comes."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.instruments.turns import Turns, TurnsEnded, paused_children
from launch.gate.referee import BEAT_S, TURN_S, Place, Referee, referee

ROUNDS = 40


class Rank(threading.Thread):
    """A rank that trains so many turns, and notes each: (its name, number of the turn, steps)."""

    def __init__(self, side: Place, diary: list[tuple[str, int, int]], **more: object) -> None:
        super().__init__(daemon=True)
        self.side, self.diary = side, diary
        self.key, self.rounds, self.rank, self.ranks, self.window_s = "same", ROUNDS, 0, 1, TURN_S
        self.launches, self.fails_at = 1, -1
        vars(self).update(more)
        self.ended: str | None = None
        self.partners: list[str] = []

    def run(self) -> None:
        name = f"{self.side.name}{self.rank}"
        try:
            for launch in range(self.launches):
                turns = Turns(str(self.side.address))
                turns.begin(f"{self.side.name}-{launch}", f"{self.key}-{launch}", self.rank, self.ranks)
                for number in range(self.rounds):
                    if number == self.fails_at:
                        turns.connection.close()  # as the kernel does for a process that is killed
                        return
                    self.diary += [(name, turns.number, turns.windows)]
                    time.sleep(0.0005)
                    self.diary += [(name, turns.number, turns.windows)]
                    if number + 1 < self.rounds:
                        turns.hand_over(self.window_s)
                turns.leave()
                self.partners = turns.partners
            self.ended = "left"
        except TurnsEnded as error:
            self.ended = str(error)


def play(judge: Referee, *ranks: Rank) -> None:
    """Serve until all ranks have ended."""
    for rank in ranks:
        rank.start()
    play_on(judge, *ranks)


def play_on(judge: Referee, *ranks: Rank) -> None:
    """Serve until all of these ranks, which have been started, have ended."""
    deadline = time.monotonic() + 30
    while any(rank.is_alive() for rank in ranks):
        judge.serve(0.01)
        assert time.monotonic() < deadline, "a rank waits for a turn that does not come"


def test_sides_take_turns_in_an_order_of_chance_and_never_train_at_once() -> None:
    diary: list[tuple[str, int, int]] = []
    with referee(["base", "head"]) as judge:
        both = [Rank(side, diary) for side in judge.sides]
        play(judge, *both)
    assert [rank.ended for rank in both] == ["left", "left"]
    assert both[0].partners == ["head-0"]
    assert diary[::2] == diary[1::2], "a turn of one side begins before that of the other has ended"
    turns = diary[::2]
    assert [number for _, number, _ in turns] == [number for number in range(ROUNDS) for _ in both]
    firsts = [name for name, _, _ in turns[::2]]
    assert all(one != other for (one, _, _), (other, _, _) in zip(turns[::2], turns[1::2], strict=True))
    assert 5 <= firsts.count("base0") <= ROUNDS - 5  # by chance alone, one in 10^7 is not


def test_a_turn_is_of_all_ranks_of_a_side_and_of_no_other() -> None:
    diary: list[tuple[str, int, int]] = []
    with referee(["base", "head", "third"]) as judge:
        ranks = [Rank(side, diary, rank=rank, ranks=2, rounds=10) for side in judge.sides for rank in (0, 1)]
        play(judge, *ranks)
    assert {rank.ended for rank in ranks} == {"left"}
    assert len(diary) == 3 * 10 * 4
    for at in range(0, len(diary), 4):  # four entries: begin and end of both ranks
        names = [name for name, _, _ in diary[at : at + 4]]
        assert {name[:-1] for name in names} == {names[0][:-1]}
        assert sorted(names) == [f"{names[0][:-1]}{rank}" for rank in (0, 0, 1, 1)]


@pytest.mark.parametrize(("fast_s", "slow_s", "windows"), [(0.1, 0.2, 1), (TURN_S / 50, TURN_S / 10, 10)])
def test_a_turn_has_as_many_steps_as_the_slower_side_needs_time_for(fast_s: float, slow_s: float, windows: int) -> None:
    diary: list[tuple[str, int, int]] = []
    with referee(["base", "head"]) as judge:
        play(judge, *(Rank(side, diary, window_s=s) for side, s in zip(judge.sides, (fast_s, slow_s), strict=True)))
    assert {steps for _, number, steps in diary if number == 0} == {1}, "how long a step takes is not known yet"
    assert {steps for _, number, steps in diary if number > 1} == {windows}


def test_one_launch_follows_another() -> None:
    diary: list[tuple[str, int, int]] = []
    with referee(["base", "head"]) as judge:
        both = [Rank(side, diary, launches=3, rounds=5) for side in judge.sides]
        play(judge, *both)
        assert judge.matches == 3
        assert not judge.broken
    assert [rank.ended for rank in both] == ["left", "left"]
    assert both[1].partners == ["base-2"]


@pytest.mark.parametrize("at", [0, 7])
def test_the_end_of_one_side_ends_the_other(at: int) -> None:
    with referee(["base", "head"]) as judge:
        both = [Rank(judge.sides[0], []), Rank(judge.sides[1], [], fails_at=at)]
        play(judge, *both)
        assert judge.broken == "the launch of head ended before its time"
    assert both[0].ended == judge.broken


def test_a_rank_that_comes_after_the_end_is_told() -> None:
    with referee(["base", "head"]) as judge:
        judge.end("head could not start")
        late = Rank(judge.sides[0], [])
        play(judge, late)
    assert late.ended == "head could not start"


def test_a_launch_that_begins_before_the_last_one_left_ends_all() -> None:
    """As when a test of a user's fails in a way that leaves its connection open."""
    with referee(["base", "head"]) as judge:
        first = Turns(str(judge.sides[0].address))
        waiting = [threading.Thread(target=ends, args=(turns, name), daemon=True) for turns, name in [(first, "one")]]
        waiting[0].start()
        while not judge.sides[0].hello:
            judge.serve(0.01)
        second = threading.Thread(target=ends, args=(Turns(str(judge.sides[0].address)), "two"), daemon=True)
        second.start()
        while second.is_alive() or waiting[0].is_alive():
            judge.serve(0.01)
        assert judge.broken == "base began a launch before its last one had left"


def ends(turns: Turns, launch_id: str) -> None:
    with pytest.raises(TurnsEnded, match="before its last one had left"):
        turns.begin(launch_id, "same")


def test_a_path_that_is_too_long_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(UsageError, match="set TMPDIR to a folder of a shorter name"), referee(["base"]):
        pass


def test_other_settings_do_not_take_turns() -> None:
    diary: list[tuple[str, int, int]] = []
    with referee(["base", "head"]) as judge:
        both = [Rank(side, diary, key=side.name) for side in judge.sides]
        play(judge, *both)
    assert {rank.ended for rank in both} == {"the sides have other settings"}
    assert diary == []


def test_the_end_of_the_referee_ends_all() -> None:
    with referee(["base", "head"]) as judge:
        waiting = Rank(judge.sides[0], [])
        waiting.start()
        while not judge.sides[0].hello:
            judge.serve(0.01)
    waiting.join(10)
    assert waiting.ended == "the referee of the turns has ended"
    with pytest.raises(TurnsEnded, match="the referee of the turns has ended"):
        Turns("/nowhere/socket")


def test_who_waits_is_alive() -> None:
    beats: list[float] = []
    with referee(["base", "head"]) as judge:
        turns = Turns(str(judge.sides[0].address), lambda: beats.append(time.monotonic()))

        def wait() -> None:
            with pytest.raises(TurnsEnded):
                turns.begin("one", "same")

        waiting = threading.Thread(target=wait)
        waiting.start()
        while not beats:
            judge.serve(0.05)
        judge.end("enough")
        waiting.join(10)
    assert not waiting.is_alive()


def test_who_waits_for_a_rank_of_its_own_launch_does_not_beat() -> None:
    """The one that it waits for may hang: then its launcher has to notice."""
    beats: list[float] = []
    with referee(["base", "head"]) as judge:
        turns = Turns(str(judge.sides[0].address), lambda: beats.append(time.monotonic()))

        def wait() -> None:
            with pytest.raises(TurnsEnded):
                turns.begin("one", "same", 0, 2)

        waiting = threading.Thread(target=wait)
        waiting.start()
        deadline = time.monotonic() + 1.5 * BEAT_S
        while time.monotonic() < deadline:
            judge.serve(0.05)
        judge.end("enough")
        waiting.join(10)
    assert not waiting.is_alive()
    assert beats == []


def test_the_end_of_a_rank_that_has_left_ends_the_other_side() -> None:
    with referee(["base", "head"]) as judge:
        both = [Rank(judge.sides[0], [], rounds=10**6), Rank(judge.sides[1], [], ranks=2, rounds=1)]
        second = Turns(str(judge.sides[1].address))
        begun = threading.Thread(target=second.begin, args=("head-0", "same-0", 1, 2))
        begun.start()
        for rank in both:
            rank.start()
        while begun.is_alive() or not judge.sides[1].left:
            judge.serve(0.01)
        second.connection.close()
        play_on(judge, both[0])
    assert both[0].ended == "the launch of head ended before its time"


def test_a_rank_may_end_at_the_moment_when_the_match_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def send(connection: Connection, **message: object) -> None:
        connection.send_bytes(json.dumps(message).encode())

    with referee(["base", "head"]) as judge:
        base, head = (Turns(str(side.address)).connection for side in judge.sides)
        for connection in (base, head):
            send(connection, launch_id="one", key="same", rank=0, processes=1, pid=1)
        while not judge.round:  # then one has its turn, and the other waits for its own
            judge.serve(0.1)
        first, last = (base, head) if base.poll() else (head, base)
        send(first, left=True)
        while not last.poll():
            judge.serve(0.1)
        send(last, left=True)
        first.close()
        ready = judge.selector.select(0.1)
        assert len(ready) == 2
        last_side = judge.sides[0] if last is base else judge.sides[1]
        ready.sort(key=lambda event: event[0].data[0] is not last_side)  # what the kernel says first is left to chance
        monkeypatch.setattr(judge.selector, "select", lambda seconds: ready)
        judge.serve(0.1)
        assert judge.matches == 1


def count_up(path: Path) -> None:
    number = 0
    while True:
        number += 1
        path.write_text(str(number))
        time.sleep(0.001)


def changes(read: Callable[[], str]) -> bool:
    """Whether it changes within a while that is far longer than it takes to."""
    before, deadline = read(), time.monotonic() + 0.5
    while time.monotonic() < deadline:
        if read() != before:
            return True
    return False


def test_children_pause_in_the_turns_of_others(tmp_path: Path) -> None:
    """As loader workers would have to, which prepare batches in advance."""
    path = tmp_path / "count"
    path.write_text("")
    worker = multiprocessing.get_context("fork").Process(target=count_up, args=(path,), daemon=True)
    worker.start()
    try:
        assert changes(path.read_text)
        with paused_children():
            time.sleep(0.05)  # what was under way
            assert not changes(path.read_text)
        assert changes(path.read_text)
        with pytest.raises(TurnsEnded), paused_children():
            raise TurnsEnded("also then they go on")
        assert changes(path.read_text)
    finally:
        worker.kill()
        worker.join()
