"""Benchmarks here record the accelerator, and count what a step asks of torch."""

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState

from bench.pytest_plugins.step import (
    benchmark_step,
    pytest_benchmark_update_commit_info,
    pytest_benchmark_update_machine_info,
)

__all__ = ["benchmark_step", "pytest_benchmark_update_commit_info", "pytest_benchmark_update_machine_info"]


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps one precision for a process, and the suite's worker takes all cores."""
    threads = torch.get_num_threads()
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)
