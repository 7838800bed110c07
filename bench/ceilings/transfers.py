"""Copies on the device and to it, and all-reduces: the calls, and the bytes of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

FLOAT_BYTES = 4


def device_copy(size: int, device: torch.device) -> tuple[Callable[[], Any], int]:
    """(the call, its bytes): a copy of `size` bytes on the device, which reads and writes each of them."""
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return lambda: target.copy_(source), 2 * size


def host_to_device(size: int, device: torch.device) -> tuple[Callable[[], Any], int]:
    """(the call, its bytes): a copy from pinned memory, as the loader's."""
    source = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(size, dtype=torch.uint8, device=device)
    return lambda: target.copy_(source, non_blocking=True), size


def all_reduce(size: int, device: torch.device) -> tuple[Callable[[], Any], int]:
    """(the call, its bytes): the group adds up `size` bytes of float32 of each process. All ranks call it."""
    message = torch.zeros(size // FLOAT_BYTES, device=device)
    return lambda: dist.all_reduce(message), message.nbytes


def bus_bandwidth(bytes_per_s: float, processes: int) -> float:
    """What the links carry in an all-reduce of so many processes, whatever their number.

    Source: NVIDIA nccl-tests, doc/PERFORMANCE.md: busbw = algbw x 2(n-1)/n.
    """
    return bytes_per_s * 2 * (processes - 1) / processes
