"""What only a CUDA device can answer, in one thin place."""

from __future__ import annotations

import torch

from bench.errors import UsageError


def memory(device: torch.device) -> tuple[int, int]:
    """(peak allocated, peak reserved), in bytes."""
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)


def in_use(device: torch.device) -> int:
    """Bytes in use on the whole device now, as CUDA itself says."""
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def uuid(device: torch.device) -> str:
    """The device's name towards NVML, "GPU-...", whatever number CUDA gives it."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def cap(limit_bytes: int, device: torch.device) -> None:
    """Let the caching allocator reserve so much for tensors. UsageError: the device has less.

    The CUDA context and NCCL's buffers lie outside.
    """
    total = torch.cuda.mem_get_info(device)[1]
    if limit_bytes > total:
        raise UsageError(
            f"--memory-limit-bytes is {limit_bytes} but {name(device)} has {total} bytes; give at most that many"
        )
    # torch multiplies, and rounds down or, newer, to the nearest: from a quarter of a byte above, to this limit.
    torch.cuda.set_per_process_memory_fraction(min(1.0, (limit_bytes + 0.25) / total), device)


def allocated_bytes(device: torch.device) -> int:
    """What tensors take now."""
    return torch.cuda.memory_allocated(device)


def name(device: torch.device) -> str:
    """The device's name, such as NVIDIA A100-SXM4-80GB."""
    return torch.cuda.get_device_name(device)
