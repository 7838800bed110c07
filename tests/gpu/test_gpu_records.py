"""What a row says of the GPU: whose it is, what it drew, who else was on it, and that rows can be compared."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.machine import cuda, nvml
from bench.probes import device as device_probe

from . import trials
from .device import on_silicon
from .trials import Swept

pytestmark = pytest.mark.gpu
GIB = 2**30
LOADED_S = 3.0
SETTLED_S = 1.5
# What torch knows on any GPU; NVML's are the device probe's.
BY_TORCH = ["device_name", "device_count", "devices", "cuda", "peak_allocated_bytes", "peak_reserved_bytes"]


def gauges() -> Callable[[], dict[str, float | None]]:
    """What NVML says of the GPU that torch uses. Skips where that is nothing."""
    found = nvml.gauges(cuda.uuid(torch.device("cuda")))
    if found is None:
        pytest.skip(f"NVML cannot be asked: {nvml.trouble() or 'it knows no such device'}")
    return found


@pytest.mark.usefixtures("without_arithmetic")
def test_nvml_s_device_is_torch_s(figures: dict[str, Any]) -> None:
    """NVML's device is torch's: what torch takes, NVML sees in use, by the same UUID"""
    read = gauges()
    torch.zeros(1, device="cuda")
    before = read()["used_bytes"]
    if before is None:
        pytest.skip("NVML does not say what is in use")
    block = torch.zeros(GIB, dtype=torch.uint8, device="cuda")
    after = read()["used_bytes"]
    assert after is not None
    figures |= {"taken": block.numel(), "seen": int(after - before)}
    assert block.numel() <= after - before <= 1.1 * block.numel()


def test_energy_is_power_times_time(figures: dict[str, Any]) -> None:
    """Energy, by the GPU's counter, is its power times the time, within 15%"""
    on_silicon("it draws nothing")
    read = gauges()
    if read()["energy_j"] is None or read()["power_w"] is None:
        pytest.skip("NVML tells no energy or no power of this GPU")
    matrix = torch.randn(4096, 4096, device="cuda")

    def load(seconds: float) -> list[tuple[float, float]]:
        """(time, power) of a device that is kept busy."""
        found, until = [], time.perf_counter() + seconds
        while time.perf_counter() < until:
            for _ in range(20):
                matrix @ matrix
            torch.cuda.synchronize()
            found.append((time.perf_counter(), read()["power_w"] or 0.0))
        return found

    load(SETTLED_S)
    energy, began = read()["energy_j"], time.perf_counter()
    powers = [power for _, power in load(LOADED_S)]
    counted, lasted = (read()["energy_j"] or 0) - (energy or 0), time.perf_counter() - began
    mean = sum(powers) / len(powers)
    figures |= {"counted J": f"{counted:.0f}", "mean W": f"{mean:.0f}", "s": f"{lasted:.2f}"}
    figures["ratio"] = f"{counted / (mean * lasted):.3f}"
    assert counted == pytest.approx(mean * lasted, rel=0.15)


def _stranger(there: Event, leave: Event) -> None:
    torch.zeros(1, device="cuda")
    there.set()
    leave.wait()


@pytest.mark.usefixtures("without_arithmetic")
def test_a_stranger_on_the_gpu_is_seen(figures: dict[str, Any]) -> None:
    """A process of others that computes on the GPU is seen, and is gone when it has gone"""
    context = get_context("fork")
    there, leave = context.Event(), context.Event()
    stranger = context.Process(target=_stranger, args=(there, leave))
    stranger.start()
    assert there.wait(60)
    torch.zeros(1, device="cuda")
    uuid, own = cuda.uuid(torch.device("cuda")), [os.getpid()]
    beside = nvml.other_processes(uuid, own)
    leave.set()
    stranger.join()
    if beside is None:
        pytest.skip("NVML names no process of ours: its ids are those of another pid namespace, as in a container")
    alone = nvml.other_processes(uuid, own)
    figures |= {"beside it": beside, "without it": alone}
    assert (alone is None, beside) == (False, (alone or 0) + 1)


def test_rows_are_full(figures: dict[str, Any], tmp_path: Path) -> None:
    """Trials in float32, bf16 and fp16 are `ok`, and nothing that torch or NVML knows is missing in their rows"""
    unknown = device_probe.unreadable()
    wanted = [*BY_TORCH, *(name for name in device_probe.NEEDS if name not in unknown)]
    swept = trials.sweep(trials.words("--precision", "no,bf16,fp16", "--no-checkpoint"), tmp_path)
    rows = swept.rows()
    assert [row["status"] for row in rows] == ["ok"] * 3, swept.said
    missing = sorted({name for row in rows for name in wanted if row[name] == ""})
    figures |= {"columns": len(wanted), "missing": " ".join(missing) or 0, "NVML does not tell": len(unknown)}
    if peak := rows[0]["peak_device_bytes"]:
        assert int(rows[0]["peak_allocated_bytes"]) <= int(rows[0]["peak_reserved_bytes"]) <= int(peak)
    for row in rows:
        name = row["precision"]
        figures[f"{name} images/s"] = f"{float(row['images_per_s']):.0f}"
        assert row["device_name"] == torch.cuda.get_device_name()
        assert (row["skipped_steps"] != "") == (name == "fp16")
    assert missing == []


def test_two_equal_runs_are_comparable(figures: dict[str, Any], warm: Swept, cold: Swept) -> None:
    """Two equal runs, warm and cold, are comparable: `reports compare` refuses none and leaves no launch out"""
    words = [sys.executable, "-m", "reports", "compare", str(warm.out), str(cold.out), "--wide"]
    done = subprocess.run(words, cwd=trials.CHECKOUT, capture_output=True, text=True, check=False)
    figures["exit code"] = done.returncode
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 1: slower, by the noise of launches
    assert "not comparable" not in done.stdout
    assert "left out" not in done.stdout, done.stdout
