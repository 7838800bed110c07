"""Benchmarks here record the accelerator, and count what a step asks of torch."""

from bench.pytest_plugins.step import (
    benchmark_step,
    pytest_benchmark_update_commit_info,
    pytest_benchmark_update_machine_info,
)

__all__ = ["benchmark_step", "pytest_benchmark_update_commit_info", "pytest_benchmark_update_machine_info"]
