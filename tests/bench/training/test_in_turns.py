"""Real groups that take turns: what each measures is its own training alone, and none survives the end of the other."""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import planted
import pytest
from torch import nn

from bench.trial import Trial
from bench.variables import TURNS
from launch.gate.referee import referee
from reports.verdicts import turns

BASE_S, HEAD_S = 0.02, 0.03
WINDOWS = 40


def noted(trial: Trial, classes: int, seconds: float) -> nn.Module:
    """Sleeps in each training pass, and notes when it began and ended."""
    model = planted.Sleeper(lambda rank, number: seconds)
    times: list[float] = []
    path = Path(os.environ["PLANTED_FOLDER"]) / f"times{planted.this_rank()}.json"

    def note(*_: Any) -> None:
        if model.training:
            times.append(time.monotonic())
            path.write_text(json.dumps(times))

    model.register_forward_pre_hook(note)
    model.register_forward_hook(note)
    return model


def busy(trial: Trial, classes: int, seconds: float) -> nn.Module:
    """Computes for so much CPU time in each training pass."""
    model = planted.Sleeper(lambda rank, number: 0.0)

    def compute(*_: Any) -> None:
        until = time.process_time() + seconds
        while model.training and time.process_time() < until:
            pass

    model.register_forward_pre_hook(compute)
    return model


def together(folder: Path, trial: Trial, *builds: Callable[..., nn.Module]) -> list[planted.Ran]:
    """Run the trial with each of these models, taking turns."""
    names = ["base", "head"]
    load = functools.partial(planted.noise, train=WINDOWS * trial.effective_batch())
    found: dict[str, planted.Ran] = {}

    def run(name: str, build: Callable[..., nn.Module], address: str) -> None:
        variables: Any = {TURNS: address}
        found[name] = planted.run(folder / name, trial, build, load, **variables)

    with referee(names) as judge:
        threads = [
            threading.Thread(target=run, args=(side.name, build, str(side.address)))
            for side, build in zip(judge.sides, builds, strict=True)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            judge.serve(0.05)
    return [found[name] for name in names]


@pytest.fixture(scope="module", params=[1, 2])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[planted.Ran]:
    """A base that sleeps 20 ms in each step, and a head that sleeps 30 ms, of one process each and of two."""
    trial = planted.settings(micro_batch=4, processes=request.param)
    builds = [functools.partial(noted, seconds=seconds) for seconds in (BASE_S, HEAD_S)]
    return list(map(planted.well, together(tmp_path_factory.mktemp("turns"), trial, *builds)))


def test_no_side_trains_in_the_turn_of_the_other(both: list[planted.Ran]) -> None:
    spans = [
        (*times[at : at + 2], side)
        for side, ran in enumerate(both)
        for path in ran.folder.glob("times*.json")
        for times in [json.loads(path.read_text())]
        for at in range(0, len(times), 2)
    ]
    assert len(spans) == 2 * WINDOWS * both[0].trial.processes
    spans.sort()
    for (_, end, side), (begin, _, other) in itertools.pairwise(spans):
        assert begin >= end or side == other


def test_a_step_is_as_long_as_it_is_alone(both: list[planted.Ran]) -> None:
    """It does not include the turns of the other side; and an epoch's time is that of its steps."""
    noted_s = [time for ran in both for path in ran.folder.glob("times*.json") for time in json.loads(path.read_text())]
    training_s = max(noted_s) - min(noted_s)  # of both, one after the other: half of it is each one's, more or less
    for ran, seconds in zip(both, (BASE_S, HEAD_S), strict=True):
        steps = ran.column("steps", "step_time_s")
        assert min(steps) >= seconds
        assert seconds * WINDOWS <= float(ran.row()["epoch_time_s"]) <= sum(steps) + 1e-6
        assert sum(steps) < 0.8 * training_s, "the other side's turns would be in it"
        assert float(ran.row()["step_cpu_time_p50_s"]) < seconds, "sleeping is no CPU time"


def test_the_planted_change_comes_out_of_the_turns(both: list[planted.Ran]) -> None:
    times = [
        {int(row["turn"]): float(row["step_time_s"]) for row in ran.rows("steps") if row["measured"] == "true"}
        for ran in both
    ]
    assert times[0].keys() == times[1].keys()
    change = turns.change(*times)
    assert change is not None
    # What a step does besides sleeping is the same on both sides, and long on a busy machine.
    other_s = statistics.median(times[0].values()) - BASE_S
    assert change == pytest.approx(math.log((HEAD_S + other_s) / (BASE_S + other_s)), rel=0.3)
    ids = [ran.row()["launch_id"] for ran in both]
    assert [ran.row()["turns_with"] for ran in both] == ids[::-1]


def test_cpu_time_is_what_was_computed(tmp_path: Path) -> None:
    trial = planted.settings(micro_batch=4)
    ran = planted.well(planted.run(tmp_path, trial, functools.partial(busy, seconds=0.02), planted.noise))
    for row in ran.rows("steps"):
        assert float(row["cpu_time_s"]) >= 0.02
        assert row["turn"] == ""
    assert 0.02 <= float(ran.row()["step_cpu_time_p50_s"]) < 0.04
    assert ran.row()["turns_with"] == ""


def broken(trial: Trial, classes: int) -> nn.Module:
    return planted.failing(trial, classes, at=7, how="raise", build=planted.smooth)


def test_a_side_that_fails_ends_the_other(tmp_path: Path) -> None:
    sound = functools.partial(planted.sleeper, each=[0.05])  # or it might be through before the other has ended
    base, head = together(tmp_path, planted.settings(micro_batch=4), sound, broken)
    assert (head.codes, head.row()["status"]) == ([1], "crashed")
    assert (base.codes, base.row()["status"]) == ([130], "interrupted")
    assert base.row()["error"] == "the launch of head ended before its time"
    assert 0 < len(base.rows("steps")) < WINDOWS
