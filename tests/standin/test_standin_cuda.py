"""The stand-in GPU itself: torch's own CUDA build on it, from its allocator to whole trials."""

from __future__ import annotations

from pathlib import Path

from conftest import Launch
from launching import SMALL, python, rows
from standin_cuda.standin import Standin

COUNTED = """
import torch
from tests.standin_cuda import counts

properties = torch.cuda.get_device_properties(0)
print(torch.cuda.device_count(), properties.name, torch.cuda.get_device_capability())
before = counts.read()
weight = torch.zeros(8, 3, 3, 3, device="cuda")
images = torch.zeros(4, 3, 32, 32).pin_memory().to("cuda", non_blocking=True)
found = torch.relu(torch.conv2d(images, weight))
pinned = counts.read()
print("pinned", pinned.since(before))
labels = torch.zeros(4, dtype=torch.long).to("cuda")
pageable = counts.read()
print("pageable", pageable.since(pinned))
found.sum().item()
print("item", counts.read().since(pageable))
"""


def test_it_counts_what_a_process_asks_of_the_device(standin_cuda: Standin) -> None:
    """Two fills and a ReLU are launched, cuDNN convolves; a blocking copy waits, and so does .item()."""
    done = python("-c", COUNTED, env=standin_cuda.variables(gpus=2, arithmetic=False))
    assert done.returncode == 0, done.stderr
    device, pinned, pageable, item = done.stdout.splitlines()
    assert device == "2 Stand-in GPU (no hardware) (9, 0)"
    assert "launches=2, library_calls=1, waits=0, copies=1, pageable_copies=0" in pinned
    assert "waits=1, copies=1, pageable_copies=1" in pageable
    assert "launches=1, library_calls=0, waits=1, copies=1" in item


MEMORY = """
import torch
block = torch.empty(2**30, dtype=torch.uint8, device="cuda")
from bench.machine import cuda, nvml
uuid = cuda.uuid(torch.device("cuda", 0))
free, total = torch.cuda.mem_get_info()
print(total, nvml.free_bytes(uuid) == free, total - free > 2**30, nvml.device_names())
try:
    torch.empty(3 * 2**30, dtype=torch.uint8, device="cuda")
except torch.OutOfMemoryError as error:
    print(torch.cuda.max_memory_allocated(), "3.00 GiB" in str(error))
print(nvml.other_processes(uuid, [__import__("os").getpid()]))
"""


def test_its_memory_is_nvmls_memory_and_runs_out(standin_cuda: Standin) -> None:
    done = python("-c", MEMORY, env=standin_cuda.variables(memory_bytes=4 * 2**30, arithmetic=False))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{4 * 2**30} True True {{'Stand-in GPU (no hardware)'}}",
        f"{2**30} True",
        "0",
    ]


def test_a_whole_trial_on_it_is_the_cpus_to_the_last_digit(
    standin_cuda: Standin, launch: Launch, tmp_path: Path
) -> None:
    words = ["run", "resnet20_accumulation", "--arm", "16x1", *SMALL, "--epochs", "1"]
    for done in (
        python("-m", "launch", *words, "--out", str(tmp_path / "gpu"), env=standin_cuda.variables()),
        launch(*words, "--out", str(tmp_path / "cpu")),
    ):
        assert done.returncode == 0, done.stderr
    (on_gpu,), (on_cpu,) = (rows(tmp_path / name, "trials") for name in ("gpu", "cpu"))
    assert (on_gpu["status"], on_gpu["device_name"]) == ("ok", "Stand-in GPU (no hardware)")
    for name in ("train_loss", "train_accuracy", "eval_loss", "eval_accuracy"):
        assert on_gpu[name] == on_cpu[name] != ""
    assert 0 < int(on_gpu["peak_allocated_bytes"]) <= int(on_gpu["peak_reserved_bytes"])
    assert int(on_gpu["peak_reserved_bytes"]) < int(on_gpu["peak_device_bytes"])
    assert float(on_gpu["mean_power_w"]) > 0
