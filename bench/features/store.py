"""Where features are kept: on the device, in host memory, or in a file."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bench.errors import UsageError
from bench.trial import Trial

Place = Literal["device", "host", "file"]


def place_for(trial: Trial, size: int, device: torch.device, free_device: float, free_host: float) -> Place:
    """The first place of which so many bytes are at most a quarter: of a GPU's free memory, of the host's, a file.

    Also of the trial's limit, on the memory of the device. On a CPU the device's memory is the host's.
    """
    limit = trial.memory_limit_bytes or math.inf
    if device.type == "cuda":
        return "device" if size <= min(free_device, limit) / 4 else "host" if size <= free_host / 4 else "file"
    return "host" if size <= min(free_host, limit) / 4 else "file"


def allocate(shape: Sequence[int], dtype: torch.dtype, place: Place, device: torch.device, folder: Path) -> Tensor:
    """An empty tensor in this place. A file lies in the folder, without a name, and is gone when the process ends.

    Raises UsageError if the file cannot be made.
    """
    if place != "file":
        return torch.empty(tuple(shape), dtype=dtype, device=device if place == "device" else "cpu")
    path, size = None, math.prod(shape)
    try:
        # A name of its own: ranks on several machines may share the folder, and have equal process ids.
        descriptor, path = tempfile.mkstemp(prefix=".features.", dir=folder)
        with open(descriptor, "wb") as file:
            # Now, since a full disk would end the process later, by a signal, where it writes to the memory.
            os.posix_fallocate(file.fileno(), 0, max(1, size * dtype.itemsize))
        return torch.from_file(path, shared=True, size=size, dtype=dtype).view(tuple(shape))
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"cannot keep {size * dtype.itemsize} bytes of features in {folder} ({error}); make room there, choose "
            f"another --out, or give --features each_epoch"
        ) from error
    finally:
        if path is not None:
            os.unlink(path)


def take(values: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """These rows, (N, F), in memory of their own on the device. `rows` lie where the values do."""
    chosen = values[rows]
    if device.type == "cuda" and not chosen.is_cuda:
        chosen = chosen.pin_memory()  # so that the copy does not wait for the device
    return chosen.to(device, non_blocking=True)
