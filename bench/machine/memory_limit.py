"""Holds this process to a limit on what its tensors take, and says how much of it they took.

On a CUDA device the caching allocator is capped. On the CPU it is the kernel that refuses: the limit is one on the
process's data segment (RLIMIT_DATA), from what it has in use once nothing but the trial's own memory is still to come.
"""

from __future__ import annotations

import importlib
import resource
import threading
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from bench.errors import UsageError
from bench.machine import compiler, procfs
from bench.trial import Trial

# What a trial imports when it first needs it: a library takes memory that no tensor asked for.
IMPORTED_LATE = {"cifar10": "torchvision.datasets", "loader": "torchvision.transforms.v2"}


@dataclass(frozen=True)
class Limit:
    """What this process is held to; None: nothing. `base_bytes`: what it had in use before, on the CPU."""

    bytes: int | None
    device: torch.device
    base_bytes: int | None

    def held_bytes(self) -> int | None:
        """What is held of it now. On the CPU that is all that was taken since, to the page; None: nothing tells."""
        if self.device.type == "cuda":
            from bench.machine import cuda

            return cuda.allocated_bytes(self.device)
        in_use = procfs.data_bytes()
        return None if in_use is None or self.base_bytes is None else in_use - self.base_bytes

    def let_go(self) -> int | None:
        """As held_bytes, of a limit that this lifts: there may not be the memory left to read it."""
        if self.base_bytes is not None:
            lift()
        return self.held_bytes()


def hold(trial: Trial, device: torch.device) -> Limit:
    """Hold this process to the trial's limit, from now on. UsageError: this machine cannot.

    To be called when the group has formed, and before data and model are there.
    """
    if trial.memory_limit_bytes is None:
        return Limit(None, device, None)
    if device.type == "cuda":
        from bench.machine import cuda

        cuda.cap(trial.memory_limit_bytes, device)
        return Limit(trial.memory_limit_bytes, device, None)
    if procfs.data_bytes() is None:
        raise UsageError("--memory-limit-bytes on a CPU needs Linux, whose kernel tells what is in use")
    warm_up(trial)
    base = procfs.data_bytes()
    assert base is not None
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if most != resource.RLIM_INFINITY and base + trial.memory_limit_bytes > most:
        raise UsageError(
            f"--memory-limit-bytes is {trial.memory_limit_bytes} but this process may have {most - base} bytes more; "
            f"raise ulimit -Hd, or give at most that many"
        )
    # The soft limit alone: what reports the failure can lift it.
    resource.setrlimit(resource.RLIMIT_DATA, (base + trial.memory_limit_bytes, most))
    return Limit(trial.memory_limit_bytes, device, base)


def lift() -> None:
    """Take back a limit on the CPU: what reports a failure, and what another process does, is no part of the trial."""
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def warm_up(trial: Trial) -> None:
    """Take all that training takes once and keeps: libraries, the threads' stacks (8 MiB each), oneDNN's kernels."""
    importlib.import_module("bench.instruments.operations")  # which the probe of that name needs
    for name in (trial.data, trial.pipeline):
        if name in IMPORTED_LATE:
            importlib.import_module(IMPORTED_LATE[name])
    # Large enough to be shared out among the threads.
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 30 * 30, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    compiler.compile_model(model, trial)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=trial.precision == "bf16"):
            logits = model(torch.zeros(16, 3, 32, 32))
        F.cross_entropy(logits.float(), torch.zeros(16, dtype=torch.long)).backward()
        optimizer.step()
        optimizer.zero_grad()
    _keep_stacks(trial.workers)  # after all that may take one of them for good


def _keep_stacks(threads: int) -> None:
    """Have stacks for so many threads in the C library's cache of them, which holds 40 MiB.

    A DataLoader feeds each of its workers from a thread of this process.
    """
    together = threading.Barrier(threads + 1)
    started = [threading.Thread(target=together.wait) for _ in range(threads)]
    for thread in started:
        thread.start()
    together.wait()
    for thread in started:
        thread.join()
