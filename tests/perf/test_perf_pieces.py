"""What else is ours and takes time: records, prediction, reports, and a step of each experiment with its counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from pytest_benchmark.fixture import BenchmarkFixture

from bench import experiments
from bench.memory.prediction import predict
from bench.pytest_plugins.step import Run
from bench.record.run_folder import RunFolder
from bench.training.loop import run_window
from bench.training.windows import epoch_windows
from bench.trial import Trial
from reports import page, read
from reports.tables import table

from . import million
from .contenders import Ours

IMAGES = 64


@pytest.fixture
def fresh() -> Iterator[None]:
    """Accelerate keeps one precision for a process, and the suite's worker takes all cores."""
    threads = torch.get_num_threads()
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", experiments.names())
def test_a_step_of_an_experiment(name: str, benchmark: BenchmarkFixture, benchmark_step: Run) -> None:
    """Its first arm, on four small images."""
    own = experiments.load(name).trial(name, next(iter(experiments.load(name).arms)))
    changes: Any = {"weights": "none", "image_size": 32, "micro_batch": 4, "accumulate": 1, "precision": "no"}
    loop = Ours(dataclasses.replace(own, **changes), IMAGES)
    window = next(epoch_windows(IMAGES, 4, 1, 1, 0))
    batches = list(loop.feed.train(0, window.passes))
    loop.training.model.train()
    loop.meter.epoch_begin()

    def step() -> None:
        run_window(loop.training, window, iter(batches), loop.meter)
        loop.meter.window_end(window, {})

    benchmark_step(step, rounds=3, warmup_rounds=1)
    assert benchmark.extra_info["flops_per_window"] > 1e6
    assert benchmark.extra_info["waits_per_window"] == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten launches of a hundred steps."""
    folder = tmp_path_factory.mktemp("run")
    million.plant(folder, launches=10, epochs=10, windows=10)
    return folder


def test_writing_rows_of_steps(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """A hundred, as the worker writes them at a time."""
    rows = [{"launch_id": "a", "window": n, "measured": True, "step_time_s": 0.02} for n in range(100)]
    benchmark.pedantic(RunFolder(tmp_path).append, args=("steps", rows), rounds=20, warmup_rounds=1)
    assert len(RunFolder(tmp_path).rows("steps")) == 2100


def test_reading_trials_into_tables(benchmark: BenchmarkFixture, run: Path) -> None:
    sheets = benchmark.pedantic(lambda: table.sheets(read.trials(run)), rounds=5, warmup_rounds=1)
    assert sum(len(sheet.rows) for sheet in sheets) == 10


def test_writing_the_page(benchmark: BenchmarkFixture, run: Path, tmp_path: Path) -> None:
    benchmark.pedantic(page.write, args=(run, tmp_path / "page.html"), rounds=2, warmup_rounds=1)
    assert (tmp_path / "page.html").read_text().count("<figure>") >= 3


def test_predicting_memory(benchmark: BenchmarkFixture) -> None:
    trial = Trial(experiment="x", arm="x", model="resnet20", data="synthetic", micro_batch=4)
    found = benchmark.pedantic(predict, args=(trial, "cpu"), rounds=2, warmup_rounds=1)
    assert found.allocated_bytes > 2**20
