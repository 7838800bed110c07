"""A limit on the memory that the tensors of this process may take, and how much of it they hold.

On CUDA the caching allocator is capped. On a CPU the kernel refuses memory: the limit is set on the data segment of the
process (RLIMIT_DATA), on top of what it has in use before the trial's own data and model.
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
from bench.machine import compiler, cuda, procfs
from bench.trial import Trial

# Libraries that a trial imports when it first needs them. They take memory that is no tensor's.
IMPORTED_LATE = {"cifar10": "torchvision.datasets", "loader": "torchvision.transforms.v2"}


@dataclass(frozen=True)
class Limit:
    """The limit of this process; `bytes` None: no limit. `base_bytes`: on a CPU, what was in use before it."""

    bytes: int | None
    device: torch.device
    base_bytes: int | None

    def held_bytes(self) -> int | None:
        """What tensors hold now; on a CPU all that was taken since the limit was set, in whole pages. None: unknown."""
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        in_use = procfs.data_bytes()
        return None if in_use is None or self.base_bytes is None else in_use - self.base_bytes

    def in_force(self) -> int | None:
        """The limit as the kernel or torch has it now, to the byte. None: no limit, or torch does not tell."""
        if self.bytes is None:
            return None
        if self.base_bytes is not None:
            return resource.getrlimit(resource.RLIMIT_DATA)[0] - self.base_bytes
        return cuda.capped_at(self.device)

    def remove(self) -> int | None:
        """Remove the limit, then return `held_bytes`: reading it takes memory that the limit may not leave."""
        if self.base_bytes is not None:
            remove()
        return self.held_bytes()


def apply(trial: Trial, device: torch.device) -> Limit:
    """Limit this process as the trial says, from now on. Raises UsageError if this machine cannot.

    Call it when the group has formed, before data and model are loaded.
    """
    if trial.memory_limit_bytes is None:
        return Limit(None, device, None)
    if device.type == "cuda":
        cuda.cap(trial.memory_limit_bytes, device)
        return Limit(trial.memory_limit_bytes, device, None)
    if procfs.data_bytes() is None:
        raise UsageError("--memory-limit-bytes on a CPU needs Linux, which reports VmData; leave it out")
    warm_up(trial)
    base = procfs.data_bytes()
    assert base is not None
    hard_limit = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard_limit != resource.RLIM_INFINITY and base + trial.memory_limit_bytes > hard_limit:
        raise UsageError(
            f"--memory-limit-bytes is {trial.memory_limit_bytes} but this process may take only {hard_limit - base} "
            f"bytes more; raise ulimit -Hd, or give at most that many"
        )
    # The soft limit only: a process cannot raise its hard limit again, and the error report needs memory.
    resource.setrlimit(resource.RLIMIT_DATA, (base + trial.memory_limit_bytes, hard_limit))
    return Limit(trial.memory_limit_bytes, device, base)


def remove() -> None:
    """Remove a limit on a CPU, for what is not part of the trial: the error report, and a loader worker."""
    hard_limit = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard_limit, hard_limit))


def warm_up(trial: Trial) -> None:
    """Take now what training takes once and keeps: libraries, thread stacks (8 MiB each), oneDNN's kernels."""
    importlib.import_module("bench.instruments.operations")  # the probe of that name imports it
    for name in (trial.data, trial.pipeline):
        if name in IMPORTED_LATE:
            importlib.import_module(IMPORTED_LATE[name])
    # Large enough for torch to use all its threads, each of which gets its stack.
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 30 * 30, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    compiler.compile_model(model, trial)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=trial.precision == "bf16"):
            logits = model(torch.zeros(16, 3, 32, 32))
        F.cross_entropy(logits.float(), torch.zeros(16, dtype=torch.long)).backward()
        optimizer.step()
        optimizer.zero_grad()
    # Last: the threads above keep their stacks, and would take these.
    _cache_stacks(trial.workers + (trial.workers > 0))


def _cache_stacks(threads: int) -> None:
    """Put so many thread stacks into the C library's cache, which holds 40 MiB.

    A DataLoader has a thread in this process for each worker, and bench.data.loader one for all.
    """
    barrier = threading.Barrier(threads + 1)  # all threads are alive at once, so that none reuses another's stack
    started = [threading.Thread(target=barrier.wait) for _ in range(threads)]
    for thread in started:
        thread.start()
    barrier.wait()
    for thread in started:
        thread.join()
