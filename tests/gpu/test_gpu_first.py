"""What has to be true before any other number is: whose GPU it is, and that fp16 trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.machine import cuda, nvml
from bench.trial import Trial
from launch.group import accelerate_command

from .device import ON_STANDIN
from .loops import prepared

pytestmark = pytest.mark.gpu
GIB = 2**30
HUGE = 3e7  # what memory held that nobody cleared
TOO_LARGE = 2.0**26


@pytest.mark.usefixtures("without_arithmetic")
def test_torch_uses_the_gpus_that_nvml_sees(figures: dict[str, Any]) -> None:
    """torch uses the GPUs that NVML sees"""
    seen = nvml.device_count()
    if seen is None:
        pytest.skip(f"NVML cannot be asked: {nvml.trouble()}")
    count = torch.cuda.device_count()
    figures |= {"NVML": seen, "torch": count}
    assert count == len(accelerate_command.visible_gpus()) <= seen
    assert {torch.cuda.get_device_name(number) for number in range(count)} <= (nvml.device_names() or set())
    for number in range(count):
        device = torch.device("cuda", number)
        free = nvml.free_bytes(cuda.uuid(device))
        assert free is not None, f"NVML knows no {cuda.uuid(device)}"
        assert free <= torch.cuda.mem_get_info(device)[1] + GIB


def poison(device: torch.device) -> None:
    """Have the allocator hand out memory that holds large numbers."""
    for size in (2**9, 2**12, 2**16, 2**19, 2**21, 2**23):
        held = [torch.full((size // 4,), HUGE, device=device) for _ in range(64 if size < 2**20 else 4)]
        del held


def test_fp16_overflows_at_first_and_trains_on(figures: dict[str, Any]) -> None:
    """fp16: steps that overflow are skipped and counted, and what comes after is sound"""
    size: dict[str, Any] = {"limit_train": 128, "image_size": 16} if ON_STANDIN else {"limit_train": 256}
    trial = Trial(model="resnet8", data="digits", precision="fp16", micro_batch=8, lr=0.01, **size)
    loop = prepared(trial)
    training = loop.training
    assert training.scaler is not None
    training.scaler.load_state_dict({**training.scaler.state_dict(), "scale": TOO_LARGE})
    parameters = list(training.module.parameters())
    initial = [parameter.detach().clone() for parameter in parameters]
    poison(loop.device)
    windows = loop.windows()
    batches = loop.batches(windows)
    for number, window in enumerate(windows):
        loop.run(window, batches)
        if training.skipped_steps() <= number:
            break
        assert all(map(torch.equal, parameters, initial)), "a skipped step has moved the weights"
    figures |= {"skipped": number, "scale": f"{training.scaler.get_scale():g}"}
    assert 0 < number < len(windows) - 1
    moved = max(float((a - b).abs().max()) for a, b in zip(parameters, initial, strict=True))
    figures["first step at most"] = f"{moved:.3g}"
    assert 0 < moved < 1
    losses = [row["train_loss"] for window in windows[number + 1 :] for row in loop.run(window, batches)]
    losses += [row["train_loss"] for row in loop.meter.read()]
    figures["last loss"] = f"{losses[-1]:.3f}"
    assert all(bool(parameter.isfinite().all()) for parameter in parameters)
    assert number <= training.skipped_steps() < number + 4  # at the edge, a later one may overflow too
    assert losses[-1] < 10
