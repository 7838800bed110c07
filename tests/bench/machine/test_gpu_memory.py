"""What a trial may have of a GPU's memory: its limit to the byte, and what counts as free. On the stand-in GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from launching import SMALL, plant, python, rows
from standin_cuda.standin import Standin

from bench.machine import cuda

MIB = 2**20

# A child for each size of device: the first look at one fixes it for the process. torch rounds what it takes of a
# device up to 2 MiB here, so that a limit of one byte less refuses the same tensor.
CAPPED = """
import json, os, sys
import torch
from bench.machine import memory_limit
from bench.training.group import Group
from bench.trial import Trial
from bench.errors import UsageError

def fits(limit_bytes, tensor_bytes):
    torch.cuda.empty_cache()
    memory_limit.apply(Trial(memory_limit_bytes=limit_bytes), device)
    try:
        torch.empty(tensor_bytes, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError:
        return False
    return True

for total, tensor_bytes in json.loads(sys.argv[1]):
    if os.fork() == 0:
        os.environ["STANDIN_CUDA_BYTES"] = str(total)
        device = Group(Trial()).device
        free, seen = torch.cuda.mem_get_info(device)
        assert seen == total, seen
        try:
            memory_limit.apply(Trial(memory_limit_bytes=total + 1), device)
        except UsageError as error:
            refused = str(error)
        memory_limit.apply(Trial(memory_limit_bytes=total), device)
        print(device, fits(tensor_bytes, tensor_bytes), fits(tensor_bytes - 1, tensor_bytes), refused, flush=True)
        os._exit(0)
    os.wait()
"""
# The last three are sizes at which the plain quotient, multiplied and rounded down, comes to a byte less.
SIZES = [(80 * 2**30, 512 * MIB), (7_988_051_968, 480 * MIB), (25_438_126_080, 402 * MIB), (85_520_809_984, 380 * MIB)]


def test_a_limit_is_the_limit_to_the_byte_on_a_device_of_any_size(standin_cuda: Standin) -> None:
    done = python("-c", CAPPED, json.dumps(SIZES), env=standin_cuda.variables(arithmetic=False))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"cuda:0 True False --memory-limit-bytes is {total + 1} but Stand-in GPU (no hardware) has {total} bytes; "
        "give at most that many"
        for total, _ in SIZES
    ], done.stderr
    assert sum(int(size / total * total) < size for total, size in SIZES) == 3


def test_a_trial_over_its_limit_is_out_of_memory_and_the_next_one_is_well(
    standin_cuda: Standin, tmp_path: Path
) -> None:
    small = [word if word != "64" else "512" for word in SMALL]  # images
    words = ["resnet20_accumulation", "--arm", "16x1", *small, "--limit-windows", "3", "--epochs", "1"]
    words += ["--micro-batch", "8,512,16", "--memory-limit", "128MiB", "--out", str(tmp_path)]
    done = python("-m", "launch", "run", *words, env=standin_cuda.variables(capability="8.7"))
    before, large, after = rows(tmp_path, "trials")
    assert [row["status"] for row in (before, large, after)] == ["ok", "oom", "ok"], done.stderr
    for row in (before, after):
        assert 0 < int(row["peak_reserved_bytes"]) <= 128 * MIB
    assert large["oom_phase"] in ("forward", "backward")
    assert int(large["oom_requested_bytes"]) > 0
    assert 0 < int(large["oom_held_bytes"]) <= 128 * MIB
    assert {row["device_name"] for row in (before, large, after)} == {"Stand-in GPU (no hardware)"}


FREE = """
import os, sys
from pathlib import Path
import torch
from bench.data.pipeline import free_bytes
from bench.trial import Trial

for integrated in "01":
    if os.fork() == 0:
        os.environ["STANDIN_CUDA_INTEGRATED"] = integrated
        device, root = torch.device("cuda", 0), Path(sys.argv[1])
        shares = [int(free_bytes(Trial(processes=2, machines=machines), device, root)) for machines in (1, 2)]
        print(*shares, torch.cuda.mem_get_info(device)[0], flush=True)
        os._exit(0)
    os.wait()
"""


def test_a_gpu_s_own_memory_is_its_process_s_alone_and_that_of_a_jetson_the_machine_s(
    standin_cuda: Standin, tmp_path: Path
) -> None:
    plant(tmp_path, {"proc/meminfo": "MemTotal: 9000000 kB\nMemFree: 1 kB\nMemAvailable: 3000000 kB\n"})
    done = python("-W", "ignore", "-c", FREE, str(tmp_path), env=standin_cuda.variables(arithmetic=False))
    assert done.returncode == 0, done.stderr
    own, machine = ([int(word) for word in line.split()] for line in done.stdout.splitlines())
    assert own[0] == own[1] == own[2] > 2**32
    assert machine[:2] == [1_500_000 * 1024, 3_000_000 * 1024]


@pytest.mark.parametrize("gib", [*range(1, 80), 79.5, 1 / 3])
def test_the_limit_in_force_is_read_back_to_the_byte(gib: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch keeps whole bytes and answers with their share of the device, an H200 here."""
    total, limit = 150_020_487_936, int(gib * 2**30)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: limit / total, raising=False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (total, total))
    assert cuda.capped_at(torch.device("cuda", 0)) == limit
