"""Failures: which cause a trial's row names, whichever rank it came from."""

import functools
from pathlib import Path

import planted
import pytest

from bench.failure import OUT_OF_MEMORY


@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_s_error_is_the_trial_s_cause_and_it_has_one_row(rank: int, tmp_path: Path) -> None:
    trial = planted.settings(micro_batch=2, processes=2)
    build = functools.partial(planted.failing, at=3, how="raise", build=planted.smooth, rank=rank)
    ran = planted.run(tmp_path, trial, build, functools.partial(planted.noise, train=16))
    assert ran.codes == [1, 1], ran.said()
    assert ran.row()["status"] == "crashed"
    assert ran.row()["error"] == 'RuntimeError: planted failure, in "two" lines'
    assert int(ran.row()["total_parameters"]) > 0


def test_running_out_of_memory_is_told_from_other_errors() -> None:
    for text in (
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:115] . DefaultCPUAllocator: can't allocate memory: you tried",
        "RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp",
    ):
        assert OUT_OF_MEMORY.search(text)
    assert not OUT_OF_MEMORY.search("RuntimeError: mat1 and mat2 shapes cannot be multiplied")


def test_an_allocation_that_fails_is_oom(tmp_path: Path) -> None:
    trial = planted.settings(micro_batch=4, processes=2)
    build = functools.partial(planted.hoarder, sizes=(0, 2**60))
    ran = planted.run(tmp_path, trial, build, functools.partial(planted.noise, train=32))
    assert ran.codes == [1, 1], ran.said()
    assert ran.row()["status"] == "oom"
    assert "can't allocate memory" in ran.row()["error"]
