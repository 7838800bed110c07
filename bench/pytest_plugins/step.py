"""For pytest-benchmark: times a training step with its device idle before and after.

`-p bench.pytest_plugins.step`, with this checkout on PYTHONPATH, gives the fixture `benchmark_step` and records the
machine and the commit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.errors import UsageError
from bench.instruments.compilations import compilations
from bench.instruments.operations import Operations
from bench.machine import environment, repository
from bench.pytest_plugins import in_turns

Run = Callable[..., None]


@pytest.fixture
def benchmark_step(benchmark: Any, request: pytest.FixtureRequest) -> Run:
    """`benchmark_step(step, rounds=20, warmup_rounds=3)` times a step, and counts its operations in one step more.

    The counts are in `extra_info` under the names of trials.csv (see docs/columns.md), on CUDA also the peak of
    allocated bytes over the rounds. Under `python -m launch gate --pytest`, rounds are taken in turns with those of the
    other commit, for about two seconds.
    """

    def run(step: Callable[[], object], rounds: int = 20, warmup_rounds: int = 3) -> None:
        on_cuda = torch.cuda.is_available()

        def synchronised() -> None:
            step()
            if on_cuda:
                torch.cuda.synchronize()

        if on_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        if in_turns.takes_part(request.node):
            in_turns.take(request.node, benchmark, synchronised, rounds, warmup_rounds, cpu=not on_cuda)
        else:
            benchmark.pedantic(synchronised, rounds=rounds, iterations=1, warmup_rounds=warmup_rounds)
        if on_cuda:
            benchmark.extra_info["peak_allocated_bytes"] = torch.cuda.max_memory_allocated()
        with Operations() as counted:
            step()
        benchmark.extra_info["flops_per_window"] = counted.flops
        if compilations()["compiled_graphs"] is None:  # fused kernels cannot be counted
            accessed = counted.bytes_accessed
            benchmark.extra_info["accessed_bytes_per_window"] = accessed["cuda"] or accessed.total()
        benchmark.extra_info["operations_per_window"] = counted.kinds.total()
        benchmark.extra_info["casts_per_window"] = counted.casts
        benchmark.extra_info["waits_per_window"] = counted.waits
        benchmark.extra_info["peak_bytes_per_window"] = counted.peak_bytes
        benchmark.extra_info["operation_kinds"] = counted.by_kind()

    return run


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Record what pytest-benchmark leaves out. Without it, runs on different GPUs look alike."""
    machine = environment.machine()
    on_cuda = torch.cuda.is_available()
    machine_info["resbench"] = {
        **{name: machine[name] for name in ("host", "cpu_model", "cpu_count", "driver", "torch")},
        "device_name": torch.cuda.get_device_name() if on_cuda else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "variables": machine["variables"],
        "device_count": torch.cuda.device_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if on_cuda else None,
    }


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_commit_info(config: Any, commit_info: dict[str, Any]) -> None:
    """Record the commit of the repository that the tests are part of, or none, and why.

    pytest-benchmark takes the hook's in a hook, and that around it of what was unpacked in another repository. In
    Mercurial's, what it found stays.
    """
    folder = config.rootpath
    if any((each / ".hg").exists() for each in (folder, *folder.parents)):
        return
    unknown = dict.fromkeys(("time", "author_time", "branch"))
    try:
        repository.require_tracked(folder)
        sha = repository.resolve(folder, "HEAD")
        clean = repository.is_clean(folder, untracked=False)  # results lie about in a project
    except UsageError as error:
        commit_info |= {**unknown, "id": "unknown", "dirty": False, "error": str(error)}
        return
    same = sha == commit_info.get("id")
    commit_info |= {
        **({} if same else unknown),
        "id": sha,
        "dirty": not clean or (same and bool(commit_info.get("dirty"))),
    }
