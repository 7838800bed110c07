"""A window as the device sees it: queued without a wait, right in its numbers, timed without what is not training."""

from __future__ import annotations

import dataclasses
import itertools
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.data import augment
from bench.instruments.clock import CudaClock
from bench.machine import compiler
from bench.trial import Trial

from .device import ON_STANDIN, on_silicon
from .loops import Loop, prepared

pytestmark = pytest.mark.gpu
SMALL = Trial(model="resnet8", data="digits", micro_batch=8, accumulate=2, limit_train=64, limit_eval=16, workers=1)
TOLERANCE = 1e-3
COUNTING = ("operations.py", "collectives.py")  # stand between what asks and torch
SLEPT_CYCLES = 2_000_000_000  # about a second


def waits(loop: Loop) -> str | None:
    """Where a window after the first waits for the device, or None."""
    windows = loop.windows()
    batches = loop.batches(windows)
    loop.meter.block = len(windows) + 1  # read out after the last
    loop.run(windows[0], batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for window in windows[1:]:
            loop.run(window, batches)
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        frames = [(Path(frame.filename), frame) for frame in traceback.extract_tb(error.__traceback__)]
        ours = [frame for path, frame in frames if path.parent.name == "bench" and path.name not in COUNTING]
        return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].line}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


@pytest.mark.usefixtures("without_arithmetic")
def test_no_window_waits_for_the_device(figures: dict[str, Any]) -> None:
    """No window waits for the device (torch's own sync debug mode), in any pipeline, precision or augmentation"""
    cases: list[dict[str, Any]] = [
        {"pipeline": pipeline, "precision": precision}
        for pipeline, precision in itertools.product(("resident", "loader"), ("no", "bf16", "fp16"))
    ]
    cases += [{"data": "synthetic", "precision": precision} for precision in ("no", "bf16", "fp16")]
    cases += [{"augment": name} for name in ("none", "flip", *augment.NAMES)]
    cases += [{"pipeline": "loader", "augment": "rotation"}, {"image_size": 48}, {"memory_format": "contiguous"}]
    found = {}
    for case in cases:
        trial = dataclasses.replace(SMALL, **case)
        if place := waits(prepared(trial)):
            found[" ".join(map(str, case.values()))] = place
    figures |= {"cases": len(cases), "that wait": len(found), **found}
    assert found == {}


def test_a_window_is_queued_while_the_device_still_sleeps(figures: dict[str, Any]) -> None:
    """A whole window is queued while the device still sleeps"""
    on_silicon("nothing takes time on it")
    loop = prepared(Trial(data="digits", micro_batch=64, limit_train=1024))
    windows = loop.windows()
    batches = loop.batches(windows)
    loop.meter.block = len(windows) + 1
    for window in windows[:4]:
        loop.run(window, batches)
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEPT_CYCLES)
    awake = torch.cuda.Event()
    awake.record()
    began = time.perf_counter()
    loop.run(windows[4], batches)
    queued, slept = time.perf_counter() - began, not awake.query()
    torch.cuda.synchronize()
    figures |= {"queued in ms": f"{1000 * queued:.1f}", "slept in ms": f"{1000 * (time.perf_counter() - began):.0f}"}
    assert slept


def test_ten_windows_are_the_cpu_s(figures: dict[str, Any]) -> None:
    """Ten windows have the CPU's losses in float32, TF32 off, within 0.1%; on the stand-in to the last digit"""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    trial = Trial(model="resnet8" if ON_STANDIN else "resnet20", data="digits", micro_batch=32, accumulate=2, lr=0.01)
    ours, theirs = (prepared(trial, cpu).losses(10) for cpu in (False, True))
    worst = max(abs(one / other - 1) for one, other in zip(ours, theirs, strict=True))
    figures |= {"first loss": f"{ours[0]:.6f}", "tenth loss": f"{ours[-1]:.6f}", "worst difference": f"{worst:.2e}"}
    assert len(ours) == 10
    assert len(set(ours)) == 10
    assert worst <= (0 if ON_STANDIN else TOLERANCE)


@pytest.mark.parametrize("name", augment.NAMES)
def test_augmented_images_are_the_cpu_s(figures: dict[str, Any], name: str) -> None:
    """Augmented images are the CPU's, within half a grey level of 255"""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((16, 3, 32, 32), generator=generator) * 255
    draws = torch.rand((16, augment.DRAWS), generator=generator)
    made = augment.apply(name, images.cuda(), draws.cuda()).cpu()
    worst = float((made - augment.apply(name, images, draws)).abs().max())
    figures["worst difference"] = f"{worst:.3g}"
    assert worst <= 0.5


def test_compilation_is_not_measured(figures: dict[str, Any]) -> None:
    """`--compile default`: no window in which something was compiled counts, and the second epoch compiles nothing"""
    on_silicon("Triton builds its kernels for a real device alone")
    loop = prepared(dataclasses.replace(SMALL, compile="default", limit_train=104))  # the last window is short
    compiled, measured = [], []
    for epoch in range(2):
        windows = loop.windows()
        batches = loop.batches(windows, epoch)
        for window in windows:
            before = compiler.steps_taken()
            loop.meter.block = 1
            (row,) = loop.run(window, batches)
            compiled.append(compiler.steps_taken() - before)
            measured.append(row["measured"])
    figures |= {"windows": len(compiled), "with compilation": sum(map(bool, compiled)), "measured": sum(measured)}
    assert sum(compiled) > 0
    assert not [number for number, made in enumerate(compiled) if made and measured[number]]
    assert sum(compiled[len(compiled) // 2 :]) == 0
    assert sum(measured) > 0


def test_the_clock_is_the_device_s(figures: dict[str, Any]) -> None:
    """Step times are the device's: longer than queueing the work takes, no longer than the wait for it"""
    on_silicon("nothing takes time on it")
    clock = CudaClock(torch.device("cuda"))
    matrix = torch.randn(4096, 4096, device="cuda")
    for _ in range(3):
        matrix @ matrix
    torch.cuda.synchronize()
    clock.start()
    began = time.perf_counter()
    for _ in range(50):
        matrix @ matrix
    clock.mark()
    queued = time.perf_counter() - began
    (measured,) = clock.read()
    waited = time.perf_counter() - began
    spans = {"queued": queued, "measured": measured, "waited": waited}
    figures |= {f"{name} ms": f"{1000 * seconds:.1f}" for name, seconds in spans.items()}
    assert queued < measured <= waited
