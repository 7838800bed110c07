"""The rounds of benchmark_step in turns with those of another commit, under `python -m launch gate --pytest`.

Imports no torch. bench.instruments.turns says how turns are taken.
"""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.instruments.turns import Turns, TurnsEnded
from bench.machine import malloc
from bench.variables import TURNS, new_id

# A benchmark runs at least so long on each side: starting pytest takes longer, and few turns tell little.
SHORTEST_S = 2.0
ENDED_BY_OTHER = 130
"""Exit code of pytest if the other side's ended before its time."""
TOOK_PART = pytest.StashKey[bool]()
"""Of a test's item: it has taken its turns."""


class Rounds:
    """The measured rounds of a step. `wall_s`, `cpu_s`: number of the turn -> seconds of each of its rounds.

    `cpu_s` is the CPU time of this process, all its threads together.
    """

    def __init__(self, turns: Turns, step: Callable[[], object]) -> None:
        self.turns, self.step = turns, step
        self.wall_s: dict[int, list[float]] = {}
        self.cpu_s: dict[int, list[float]] = {}

    def run_one(self) -> None:
        """One round, which ends with the device idle."""
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        self.step()
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        self.wall_s.setdefault(self.turns.number, []).append(wall_s)
        self.cpu_s.setdefault(self.turns.number, []).append(cpu_s)

    def before_one(self) -> None:
        """Hand over if the turn is over, and wait for the next."""
        taken = self.wall_s.get(self.turns.number, [])
        if len(taken) >= self.turns.windows:
            self.turns.hand_over(statistics.fmean(taken))

    def calibrate(self) -> float:
        """Seconds of a first round, which is not measured, in a turn of its own: both sides warm up at once."""
        self.run_one()
        (first_s,) = self.wall_s.pop(self.turns.number)
        self.cpu_s.clear()
        self.turns.hand_over(first_s)
        return first_s


def take(item: pytest.Item, benchmark: Any, step: Callable[[], object], rounds: int, warm_up: int, cpu: bool) -> None:
    """As benchmark.pedantic, in turns: at least `rounds` rounds, and SHORTEST_S. `cpu`: the step runs on the CPU alone.

    Writes to extra_info what reports.verdicts.pytest_benchmark reads. Ends pytest if the other side has ended.
    """
    if cpu:
        malloc.keep_freed_memory()  # as trials do: how many page faults a step has differs from launch to launch
    for _ in range(warm_up):
        step()
    launch_id = new_id()
    with match(item, launch_id) as turns:
        own = Rounds(turns, step)
        enough = math.ceil(SHORTEST_S / max(own.calibrate(), 1e-6))
        benchmark.pedantic(own.run_one, setup=own.before_one, rounds=max(rounds, enough), iterations=1)
    times = {"step_time_s": own.wall_s, **({"cpu_time_s": own.cpu_s} if cpu else {})}
    means = {name: {turn: statistics.fmean(each) for turn, each in found.items()} for name, found in times.items()}
    benchmark.extra_info["turns"] = {"launch_id": launch_id, "with": turns.partners, **means}
    if cpu:
        every = [each for turn in own.cpu_s.values() for each in turn]
        benchmark.extra_info["step_cpu_time_p50_s"] = statistics.median(every)


def pass_by(item: pytest.Item) -> None:
    """Let the other side have this test alone: here it was skipped, or failed before its turns."""
    with match(item, new_id()):
        pass


@contextlib.contextmanager
def match(item: pytest.Item, launch_id: str) -> Iterator[Turns]:
    """This test's turns, from the first until the other side has had its last too, also if the test fails here."""
    item.stash[TOOK_PART] = True
    try:
        turns = Turns(os.environ[TURNS])
        turns.begin(launch_id, item.nodeid)
        try:
            yield turns
        except TurnsEnded:
            raise
        except BaseException as error:  # pytest.fail and pytest.skip raise no Exception
            if type(error).__name__ == "OutOfMemoryError":
                turns.connection.close()  # ends the pair: the device may have no room for both sides at once
            else:
                turns.leave()
            raise
        turns.leave()
    except TurnsEnded as error:
        pytest.exit(f"no further turn: {error}", returncode=ENDED_BY_OTHER)


def takes_part(item: pytest.Item) -> bool:
    """Whether this test has turns to take, and has not yet taken them."""
    return bool(os.environ.get(TURNS)) and TOOK_PART not in item.stash
