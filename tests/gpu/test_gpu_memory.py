"""Limits on memory: tensors get what they may, a trial that wants more says so, and the next one runs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import UsageError
from bench.failure import oom
from bench.machine import cuda, memory_limit
from bench.training.group import Group
from bench.trial import Trial

from . import trials
from .device import on_silicon

pytestmark = pytest.mark.gpu
MIB = 2**20
LIMIT = "2GiB"


@pytest.mark.usefixtures("without_arithmetic")
def test_tensors_get_their_limit_and_no_more(figures: dict[str, Any]) -> None:
    """Tensors get their limit and no more"""
    device = Group(Trial()).device  # as Accelerate gives it to a single process
    held = memory_limit.apply(Trial(memory_limit_bytes=512 * MIB), device)
    block = torch.empty(400 * MIB, dtype=torch.uint8, device=device)
    assert (held.held_bytes() or 0) >= block.numel()
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(200 * MIB, dtype=torch.uint8, device=device)
    assert oom.requested_bytes(str(caught.value)) == 200 * MIB
    rest = torch.empty(112 * MIB, dtype=torch.uint8, device=device)
    figures |= {"limit": 512 * MIB, "given": block.numel() + rest.numel()}
    total = torch.cuda.mem_get_info(device)[1]
    with pytest.raises(UsageError, match=f"is {total + 1} but .* has {total} bytes"):
        memory_limit.apply(Trial(memory_limit_bytes=total + 1), device)


def test_a_trial_over_its_limit_says_so_and_the_next_one_runs(figures: dict[str, Any], tmp_path: Path) -> None:
    """A trial over its limit is `oom`, says in which phase and for how many bytes, and the trial after it is `ok`"""
    words = trials.words("--data", "synthetic", "--image-size", "32", "--limit-train", "16384", "--no-checkpoint")
    words += ["--limit-windows", "4"]
    found = trials.sweep([*words, "--micro-batch", "8192,64", "--memory-limit", "256MiB"], tmp_path)
    large, small = found.rows()
    assert (large["status"], small["status"]) == ("oom", "ok"), found.said
    phase, asked, held = large["oom_phase"], int(large["oom_requested_bytes"]), int(large["oom_held_bytes"])
    figures |= {"phase": phase, "asked for": asked, "held": held, "of": 256 * MIB, "then": small["peak_reserved_bytes"]}
    assert phase in ("forward", "backward")
    assert 0 < held <= 256 * MIB < held + asked
    assert int(small["peak_reserved_bytes"]) <= 256 * MIB


def test_fit_is_near_the_predicted_micro_batch(figures: dict[str, Any], tmp_path: Path) -> None:
    """`fit`: the largest micro-batch that runs, within 3% of the predicted one"""
    on_silicon("with arithmetic it takes no workspaces, and without nothing can be evaluated")
    words = ["-m", "launch", "fit", "resnet20_accumulation", "--arm", "64x2", "--data", "synthetic"]
    found = trials.command([*words, "--memory-limit", LIMIT], tmp_path)
    assert found.code == 0, found.said
    with open(tmp_path / "fit.csv", newline="") as file:
        (answer,) = csv.DictReader(file)
    predicted, measured = int(answer["predicted_micro_batch"]), int(answer["measured_micro_batch"])
    figures |= {"limit": LIMIT, "predicted": predicted, "measured": measured, "tries": answer["tries"]}
    assert abs(predicted / measured - 1) <= 0.03


@pytest.mark.usefixtures("without_arithmetic")
def test_the_simulated_allocator_is_torch_s_own(figures: dict[str, Any]) -> None:
    """500 allocations: the simulated caching allocator has the peaks of torch's own"""
    from bench.memory.caching_allocator import CachingAllocator

    torch.zeros(1, device="cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    generator = torch.Generator().manual_seed(0)
    simulated, held = CachingAllocator(), []
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(500):
        size = int(2 ** (26 * torch.rand((), generator=generator)))
        held.append((torch.empty(size, dtype=torch.uint8, device="cuda"), simulated.allocate(size)))
        if torch.rand((), generator=generator) < 0.5:
            _, block = held.pop(int(torch.randint(len(held), (), generator=generator)))
            simulated.free(block)
            del _
    peaks = cuda.memory(torch.device("cuda"))
    figures |= {"allocated": peaks[0] - before[0], "reserved": peaks[1] - before[1]}
    assert peaks[0] - before[0] == simulated.peak_allocated
    assert peaks[1] - before[1] == simulated.peak_reserved
