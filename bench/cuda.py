"""What only a CUDA device can answer, in one thin place."""

from __future__ import annotations

import torch

from bench import nvml
from bench.trial import UsageError


def memory(device: torch.device) -> tuple[int, int, int | None]:
    """(peak allocated, peak reserved, in use now on the whole device), in bytes.

    In use: NVML's answer, or the driver's own where NVML has none, as on a Jetson.
    """
    in_use = nvml.used_bytes(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    if in_use is None:
        free, total = torch.cuda.mem_get_info(device)
        in_use = total - free
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device), in_use


def cap(limit_bytes: int, device: torch.device) -> None:
    """Let the caching allocator reserve so much for tensors. UsageError: the device has less.

    The CUDA context and NCCL's buffers lie outside.
    """
    total = torch.cuda.mem_get_info(device)[1]
    if limit_bytes > total:
        raise UsageError(
            f"--memory-limit-bytes is {limit_bytes} but {name(device)} has {total} bytes; give at most that many"
        )
    torch.cuda.set_per_process_memory_fraction(limit_bytes / total, device)


def allocated_bytes(device: torch.device) -> int:
    """What tensors take now."""
    return torch.cuda.memory_allocated(device)


def name(device: torch.device) -> str:
    """The device's name, such as NVIDIA A100-SXM4-80GB."""
    return torch.cuda.get_device_name(device)
