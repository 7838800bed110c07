"""What a window, a batch and a reading of the probes take, for pytest-benchmark to compare. Nothing here fails by time.

    python -m pytest tests/perf --benchmark-save NAME, and later --benchmark-compare

They run on the threads that tests have: one, so that a busy machine disturbs them least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import jetsons
import pytest
import torch
from accelerate.state import AcceleratorState
from pytest_benchmark.fixture import BenchmarkFixture

from bench.instruments.sampler import Sampler
from bench.probes.device import COUNTERS, INTEGRALS, PEAKS, gauges
from bench.training.loop import run_window
from bench.training.meter import Meter
from bench.training.windows import epoch_windows
from bench.trial import Trial
from bench.worker import all_probes

from .contenders import Ours
from .speed import small

IMAGES = 512
Start = Callable[[Trial], Ours]


@pytest.fixture
def start() -> Iterator[Start]:
    """Sets the suite's training up. Accelerate keeps one precision for a process, and the worker takes all cores."""
    threads = torch.get_num_threads()

    def begin(trial: Trial) -> Ours:
        AcceleratorState._reset_state(reset_partial_state=True)
        loop = Ours(trial, IMAGES)
        torch.set_num_threads(threads)
        return loop

    yield begin
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("micro_batch", [128, 16])
def test_window(benchmark: BenchmarkFixture, start: Start, micro_batch: int, precision: str) -> None:
    """One window of 128 images, probes included, its batches made before."""
    trial = small(micro_batch, precision)
    loop = start(trial)
    window = next(epoch_windows(IMAGES, trial.micro_batch, trial.accumulate, 1, 0))
    batches = list(loop.feed.train(0, window.passes))
    loop.training.model.train()
    loop.meter.epoch_begin()

    def step() -> None:
        run_window(loop.training, window, iter(batches), loop.meter)
        loop.meter.window_end(window, {})

    before = {name: parameter.clone() for name, parameter in loop.training.module.named_parameters()}
    benchmark.pedantic(step, rounds=3, warmup_rounds=1)
    assert all((parameter != before[name]).any() for name, parameter in loop.training.module.named_parameters())


@pytest.mark.parametrize("micro_batch", [128, 16])
def test_making_a_batch(benchmark: BenchmarkFixture, start: Start, micro_batch: int) -> None:
    """Crops, flips and normalising, for images that are resident."""
    loop = start(small(micro_batch))
    assert loop.feed.pipeline == "resident"
    batches = loop.feed.train(0, [(0, micro_batch)] * 50)
    next(batches)  # draws for the whole epoch
    images, labels = benchmark.pedantic(next, args=(batches,), rounds=40, warmup_rounds=5)
    assert images.shape == (micro_batch, 3, 32, 32)
    assert len(labels) == micro_batch


def full_meter(windows: int) -> tuple[Meter, Callable[[], None]]:
    """A Meter of one process, and a function that gives it so many windows of 16 images which computed nothing."""
    meter = Meter(all_probes(), lambda numbers: [numbers], 0, torch.device("cpu"))
    meter.epoch_begin()
    logits, labels, loss = torch.zeros(16, 10), torch.zeros(16).long(), torch.zeros(())
    chosen = list(epoch_windows(16 * windows, 16, 1, 1, 0))

    def give() -> None:
        meter.block = windows + 1  # no reading in between
        for window in chosen:
            meter.window_begin(window)
            for probe in meter.probes:
                probe.batch_fetched(0.0)
            meter.communication_begin(loss)
            meter.communication_end()
            meter.micro_batch_end(loss, logits, labels)
            meter.window_end(window, {})

    return meter, give


def test_probes_in_a_window(benchmark: BenchmarkFixture) -> None:
    """What the loop calls in 60 windows, about a second's worth of ResNet-20 at 16 images."""
    meter, give = full_meter(60)
    benchmark.pedantic(give, setup=lambda: meter.read() and None, rounds=10, warmup_rounds=1)
    assert len(meter.pending) == 60


def test_reading_the_probes(benchmark: BenchmarkFixture) -> None:
    """Reading 60 windows out and combining them."""
    meter, give = full_meter(60)
    rows = benchmark.pedantic(meter.read, setup=give, rounds=10, warmup_rounds=1)
    assert [row["train_accuracy"] for row in rows] == [1.0] * 60


def test_a_sample_of_a_jetson(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """What the sampling thread does every INTERVAL_S; from plain files, so without the wait for a Jetson's I2C bus."""
    read = gauges(None, jetsons.plant(tmp_path, jetsons.ORIN_NANO))
    assert read is not None
    sampler = Sampler(read, COUNTERS, INTEGRALS, PEAKS.values())
    sampler.count(True)
    benchmark.pedantic(sampler.sample, rounds=200, warmup_rounds=5)
    assert sampler.totals()[0]["power_w"]
