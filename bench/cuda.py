"""What only a CUDA device can answer, in one thin place."""

from __future__ import annotations

import torch

from bench import nvml


def memory(device: torch.device) -> tuple[int, int, int | None]:
    """(peak allocated, peak reserved, in use now on the whole device), in bytes.

    In use: NVML's answer, or the driver's own where NVML has none, as on a Jetson.
    """
    in_use = nvml.used_bytes(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    if in_use is None:
        free, total = torch.cuda.mem_get_info(device)
        in_use = total - free
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device), in_use


def name(device: torch.device) -> str:
    """The device's name, such as NVIDIA A100-SXM4-80GB."""
    return torch.cuda.get_device_name(device)
