"""The stand-in GPU itself: torch's own CUDA build on it, its counts, its allocator, and cuDNN's newer interface."""

from __future__ import annotations

import json

import pytest
from launching import python
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


CONVOLUTIONS = """
import json
import os
import torch
from tests.standin_cuda import counts

layer = torch.nn.Conv2d(16, 16, 3, bias=False).cuda().to(memory_format=torch.channels_last)
images = torch.zeros(32, 16, 8, 8, device="cuda", requires_grad=True).to(memory_format=torch.channels_last)
gradient = torch.zeros(32, 16, 6, 6, device="cuda").to(memory_format=torch.channels_last)
found = []
for kind in (torch.float32, torch.bfloat16, torch.float16):
    for _ in range(2):
        before = counts.read()
        with torch.autocast("cuda", dtype=kind, enabled=kind != torch.float32):
            result = layer(images)
        result.backward(gradient.to(result.dtype))
        found.append(counts.read().since(before)._asdict())
print(json.dumps(found), flush=True)
os._exit(0)  # a thread of autograd's that still wants Python while it ends would abort the process
"""


# Each in a fork of a process that has torch and has used no device.
ALL = """
import json, os, sys
from bench.entry import imports_that_stay
with imports_that_stay():
    import torch
for name, code in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        for stream, end in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{sys.argv[2]}/{name}.{end}", os.O_WRONLY | os.O_CREAT), stream)
        exec(code, {})
        sys.stdout.flush()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope="module")
def said(standin_cuda: Standin, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each of the above prints on two GPUs of 4 GiB."""
    folder, codes = (
        tmp_path_factory.mktemp("said"),
        {"counted": COUNTED, "memory": MEMORY, "convolutions": CONVOLUTIONS},
    )
    env = standin_cuda.variables(gpus=2, memory_bytes=4 * 2**30, arithmetic=False)
    done = python("-c", ALL, json.dumps(codes), str(folder), env=env)
    said = {name: [(folder / f"{name}.{end}").read_text() for end in ("out", "err")] for name in codes}
    assert done.stdout.split() == ["0"] * len(codes), (done.stderr, said)
    return {name: out.splitlines() for name, (out, _) in said.items()}


def test_it_counts_what_a_process_asks_of_the_device(said: dict[str, list[str]]) -> None:
    """Two fills and a ReLU are launched, cuDNN convolves; a blocking copy waits, and so does .item()."""
    device, pinned, pageable, item = said["counted"]
    assert device == "2 Stand-in GPU (no hardware) (9, 0)"
    assert "launches=2, library_calls=1, waits=0, copies=1, pageable_copies=0" in pinned
    assert "waits=1, copies=1, pageable_copies=1" in pageable
    assert "launches=1, library_calls=0, waits=1, copies=1" in item


def test_its_memory_is_nvmls_memory_and_runs_out(said: dict[str, list[str]]) -> None:
    assert said["memory"] == [f"{4 * 2**30} True True {{'Stand-in GPU (no hardware)'}}", f"{2**30} True", "0"]


def test_a_convolution_is_three_calls_at_each_precision_and_casts_besides(said: dict[str, list[str]]) -> None:
    """Forward, images' gradient, weights' gradient; the first of a kind and those after it, which find their plan."""
    _, full, *half = found = json.loads(said["convolutions"][0])
    assert {each["library_calls"] for each in found} == {3}
    # Images, weight and gradient are cast, and two gradients back.
    assert all(each["launches"] == full["launches"] + 5 for each in half)
    assert {each["waits"] for each in found} == {0}
