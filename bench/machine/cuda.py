"""Queries and settings of a CUDA device that take more than one call of torch, in one place that tests can replace."""

from __future__ import annotations

import torch

from bench.errors import UsageError


def memory(device: torch.device) -> tuple[int, int]:
    """(peak allocated, peak reserved), in bytes."""
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)


def in_use(device: torch.device) -> int:
    """Bytes in use on the whole device now, by all processes, as CUDA reports it."""
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def uuid(device: torch.device) -> str:
    """The device's name for NVML, "GPU-...", which does not depend on the number that CUDA gives it."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def capped_at(device: torch.device) -> int | None:
    """The bytes that the caching allocator may reserve, as torch has it. None: torch before 2.8 does not tell."""
    if not hasattr(torch.cuda, "get_per_process_memory_fraction"):
        return None
    return round(torch.cuda.get_per_process_memory_fraction(device) * torch.cuda.mem_get_info(device)[1])


def cap(limit_bytes: int, device: torch.device) -> None:
    """Limit what the caching allocator may reserve. Raises UsageError if the device has less.

    The CUDA context and NCCL's buffers are not part of it.
    """
    total = torch.cuda.mem_get_info(device)[1]
    if limit_bytes > total:
        raise UsageError(
            f"--memory-limit-bytes is {limit_bytes} but {torch.cuda.get_device_name(device)} has {total} bytes; "
            f"give at most that many"
        )
    # torch multiplies the fraction by the total again, and rounds down or, in newer versions, to the nearest byte. A
    # quarter of a byte more comes out at this limit either way.
    torch.cuda.set_per_process_memory_fraction(min(1.0, (limit_bytes + 0.25) / total), device)
