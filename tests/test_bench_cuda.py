"""What needs a CUDA device. Elsewhere these skip; nothing else stands in for them."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch
from conftest import CHECKOUT

from bench import oom
from bench.record import RunFolder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none"),
]


def test_the_clock_reports_the_time_that_the_device_worked_and_not_the_host():
    from bench.clock import CudaClock

    clock = CudaClock(torch.device("cuda"))
    matrix = torch.randn(4096, 4096, device="cuda")
    for _ in range(3):
        matrix @ matrix
    torch.cuda.synchronize()
    clock.start()
    before = time.perf_counter()
    for _ in range(50):
        matrix @ matrix
    clock.mark()
    queued = time.perf_counter() - before
    (measured,) = clock.read()
    waited = time.perf_counter() - before
    assert queued < measured <= waited


def test_an_allocation_of_known_size_is_reported():
    from bench.cuda import in_use, memory

    device = torch.device("cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    allocated, reserved = memory(device)
    block = torch.empty(256 * 2**20, dtype=torch.uint8, device=device)
    after = memory(device)
    assert after[0] - allocated == block.numel()
    assert after[1] - reserved >= block.numel()
    assert in_use(device) >= reserved + block.numel()


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_a_trial_on_the_gpu_measures_everything(tmp_path, precision):
    words = ["resnet20_accumulation", "--arm", "64x2", "--data", "digits", "--epochs", "2", "--precision", precision]
    variables = {name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"}
    command = [sys.executable, "-m", "launch", "run", *words, "--out", str(tmp_path)]
    subprocess.run(command, cwd=CHECKOUT, env=variables, check=True, timeout=240)
    (row,) = RunFolder(tmp_path).rows("trials")
    assert (row["status"], row["device_count"]) == ("ok", "1")
    assert row["device_name"] not in ("", "cpu")
    assert 0 < int(row["peak_allocated_bytes"]) <= int(row["peak_reserved_bytes"]) <= int(row["peak_device_bytes"])
    assert float(row["images_per_s"]) > 0
    assert float(row["energy_j"]) / int(row["images_seen"]) == pytest.approx(float(row["energy_per_image_j"]))
    assert 0 <= float(row["device_utilisation"]) <= 1  # NVML's share of the last moments, which a fast GPU may miss
    assert (row["tf32"], row["cudnn_benchmark"]) == ("false", "false")
    for name in ("power_limit_w", "max_sm_clock_hz"):
        assert row[name] == "" or float(row[name]) > 0
    assert 0 < float(row["peak_temperature_c"]) < 120
    assert (row["skipped_steps"] != "") == (precision == "fp16")


def test_float32_is_float32_and_tf32_is_not():
    """Products of 1024 terms, against float64's: float32 is right to some 1e-6 of the largest, TF32 to some 1e-4."""
    from bench import backends
    from bench.trial import Trial

    device = torch.device("cuda", 0)
    images, weight = torch.randn(8, 64, 16, 16, device=device), torch.randn(64, 64, 4, 4, device=device)
    matrix = torch.randn(1024, 1024, device=device)

    def errors():
        pairs = [
            (torch.conv2d(images, weight), torch.conv2d(images.double(), weight.double())),
            (matrix @ matrix, matrix.double() @ matrix.double()),
        ]
        return [float((found - true).abs().max() / true.abs().max()) for found, true in pairs]

    try:
        backends.configure(Trial(), device)
        assert max(errors()) < 2e-5
        if torch.cuda.get_device_capability(device) >= backends.TF32_SINCE:
            backends.configure(Trial(tf32=True), device)
            assert errors()[1] > 2e-5
    finally:
        backends.configure(Trial(), device)


def test_tensors_get_their_limit_on_the_gpu_and_no_more():
    from bench import limit
    from bench.trial import Trial, UsageError

    device = torch.device("cuda", 0)
    torch.cuda.empty_cache()
    try:
        held = limit.hold(Trial(memory_limit_bytes=512 * 2**20), device)
        block = torch.empty(400 * 2**20, dtype=torch.uint8, device=device)
        assert (held.held_bytes() or 0) >= block.numel()
        with pytest.raises(torch.OutOfMemoryError) as caught:
            torch.empty(200 * 2**20, dtype=torch.uint8, device=device)
        assert oom.requested_bytes(str(caught.value)) == 200 * 2**20
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    total = torch.cuda.mem_get_info(device)[1]
    with pytest.raises(UsageError, match=f"is {total + 1} but .* has {total} bytes"):
        limit.hold(Trial(memory_limit_bytes=total + 1), device)


def test_a_trial_over_its_limit_on_the_gpu_is_out_of_memory_and_says_at_what(tmp_path):
    words = ["resnet20_accumulation", "--arm", "64x2", "--data", "synthetic", "--limit-train", "2048", "--epochs", "1"]
    words += ["--micro-batch", "64,1024", "--memory-limit", "512MiB", "--device", "cuda", "--out", str(tmp_path)]
    variables = {name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"}
    command = [sys.executable, "-m", "launch", "run", *words]
    subprocess.run(command, cwd=CHECKOUT, env=variables, check=False, timeout=240)
    small, large = RunFolder(tmp_path).rows("trials")
    assert (small["status"], large["status"]) == ("ok", "oom")
    assert int(small["peak_reserved_bytes"]) <= 512 * 2**20
    assert large["oom_phase"] in ("forward", "backward")
    assert 0 < int(large["oom_held_bytes"]) <= 512 * 2**20
    assert int(large["oom_requested_bytes"]) > 0
