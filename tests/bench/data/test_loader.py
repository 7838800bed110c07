"""Helpers of the input pipeline that end, stop or hang: their trial ends with a row that says so, and nothing stays."""

from __future__ import annotations

import functools
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import planted
import psutil
import pytest
import torch
from launching import until
from torch.utils.data import DataLoader

from bench.data import loader
from bench.errors import UsageError

SLEEPS = functools.partial(planted.stalling, each=[600.0], train=64)
NOISE = functools.partial(planted.noise, train=64)


@pytest.mark.parametrize(
    ("number", "load", "sensor", "said"),
    [
        (signal.SIGSTOP, NOISE, False, "RuntimeError: loader worker [0-9]+ was stopped, and no batch came for"),
        (signal.SIGKILL, NOISE, False, r"RuntimeError: DataLoader worker .* is killed by signal: Killed"),
        (
            0,
            planted.leaving,
            False,
            r"RuntimeError: (loader worker [0-9]+ ended by itself|DataLoader worker .*exited unexpectedly)",
        ),
        (0, SLEEPS, False, r"RuntimeError: no batch came from the loader workers for .* \([0-9]+ sleeping\)"),
        (0, NOISE, True, "RuntimeError: sampling the device failed: .*planted: the sensor is gone"),
    ],
    ids=["stopped", "killed", "left", "hung", "sensor"],
)
def test_a_helper_s_end_is_the_trial_s(number: int, load: Any, sensor: bool, said: str, tmp_path: Path) -> None:
    build = functools.partial(planted.breaking, number=number)
    codes = planted.group(1, planted.broken_helper, tmp_path, build, load, sensor, said=tmp_path)
    ran = planted.Ran(planted.settings(), tmp_path, codes)
    assert codes == [1], ran.said()
    assert ran.row()["status"] == "crashed"
    assert re.match(said, ran.row()["error"]), ran.row()["error"]


def test_a_worker_that_left_is_told_though_torch_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_S", "HUNG_S"):
        monkeypatch.setattr(loader, name, 0.05)
    worker = multiprocessing.get_context("fork").Process(target=os._exit, args=(0,))
    worker.start()
    until(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_ZOMBIE, "its end")  # nobody has reaped it
    watch = loader.Watch([worker])
    watch.waiting_since = time.monotonic()
    deadline = time.monotonic() + 30
    while watch.reason is None and time.monotonic() < deadline:
        time.sleep(0.05)
    worker.join()
    assert watch.reason == f"loader worker {worker.pid} ended by itself, before its last batch"


def test_another_number_of_workers_than_was_asked_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this file, or torch, gave the loader fewer."""

    def none(images: Any, **more: Any) -> DataLoader:
        return DataLoader(images, **{**more, "num_workers": 0})

    monkeypatch.setattr(loader, "DataLoader", none)
    split = planted.noise(planted.settings(), Path(), train=8).train
    with pytest.raises(UsageError, match="--workers is 1, but the loader has 0"):
        loader.load(split, [torch.arange(4)], (False, False), workers=1, pinned=False, limited=False)
