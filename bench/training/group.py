"""The process group of a trial: what this machine can form, that it is the one asked for, and what it does together."""

from __future__ import annotations

import datetime
import os
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DDPCommunicationHookType, GradientAccumulationPlugin, InitProcessGroupKwargs
from torch import Tensor, nn

from bench.errors import UsageError
from bench.instruments.collectives import in_group
from bench.machine import environment
from bench.machine.devices import check_devices, local_processes, uses_cuda, without_nvidia_smi
from bench.trial import Trial
from bench.variables import LAUNCH_ID, STORE

Found = TypeVar("Found")
TEXT_BYTES = 200
# By hand as long as one rank may take to download a data set. A launcher itself ends what hangs (--stall-timeout), and
# says so; torch would abort the process without a word.
PATIENCE_BY_HAND, PATIENCE_OF_LAUNCHERS = datetime.timedelta(hours=1), datetime.timedelta(days=7)


class Group:
    """The process group as one of its processes sees it. `peers`: rank -> process id, of those on this machine."""

    def __init__(self, trial: Trial) -> None:
        """Join the group. UsageError: it is not the one asked for."""
        self.processes = trial.processes
        self.accelerator = join(trial)
        self.rank, self.device = self.accelerator.process_index, numbered(self.accelerator.device)
        first = self.rank - self.accelerator.local_process_index
        pids = self.gather([os.getpid()])[first : first + local_processes()]
        self.peers = {first + number: int(pid) for number, (pid,) in enumerate(pids)}

    def first_fetches(self, get: Callable[[], Found]) -> Found:
        """What `get` returns; the first process of each machine goes first, and may fetch what the others then find."""
        first = self.accelerator.is_local_main_process
        found = get() if first else None
        self.accelerator.wait_for_everyone()
        return found if found is not None else get()

    def share_buffers(self, module: nn.Module) -> None:
        """Give every rank rank 0's BatchNorm statistics, so that all evaluate one model.

        DDP would do so before every window, to the same end: training does not read them.
        """
        if in_group():
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, 0)

    def gather(self, numbers: list[float]) -> list[list[float]]:
        """Every rank's numbers, rank 0 first; of none, which NCCL's way would not take, without asking the others."""
        if self.processes == 1 or not numbers:
            return [numbers] * self.processes
        mine = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        # Not Accelerate's gather, at which newer torch prints a warning.
        found = [torch.empty_like(mine) for _ in range(self.processes)]
        torch.distributed.all_gather(found, mine)
        return torch.stack(found).tolist()

    def gather_text(self, text: str) -> list[str]:
        """Every rank's text, rank 0 first; of each, the first TEXT_BYTES bytes."""
        mine = text.encode()[:TEXT_BYTES].ljust(TEXT_BYTES, b"\0")
        return [bytes(map(int, codes)).rstrip(b"\0").decode(errors="ignore") for codes in self.gather(list(mine))]

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over the ranks."""
        return self.accelerator.reduce(values, reduction="sum")


@without_nvidia_smi()
def join(trial: Trial) -> Accelerator:
    """Join the group that Accelerate's launcher set up. UsageError: it is not the one asked for."""
    check_devices(trial)
    meet()
    # Newer torch renames it; the older torch that we run on too knows this name alone.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    compressed = trial.gradient_compression == "bf16"
    ddp = DistributedDataParallelKwargs(
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
        bucket_cap_mb=trial.bucket_mib,
        comm_hook=DDPCommunicationHookType.BF16 if compressed else DDPCommunicationHookType.NO,
    )
    # All said here: Accelerate takes the rest from the environment, where a factor of the loss or a compiler may lie.
    accelerator = Accelerator(
        mixed_precision=trial.precision,
        dynamo_backend="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[ddp, InitProcessGroupKwargs(timeout=patience())],
    )
    if accelerator.device.type not in ("cuda", "cpu"):  # where it finds a GPU of Intel's or Apple's, it takes that
        raise UsageError(
            f"Accelerate chose the device {accelerator.device}, but the suite measures CUDA devices and the CPU alone; "
            f"set ACCELERATE_USE_CPU=true to use the CPU"
        )
    formed = torch.distributed.get_world_size() if in_group() else 1
    if formed != trial.processes:
        raise UsageError(
            f"--processes is {trial.processes} but {formed} formed a group; launch with python -m launch run, "
            f"or with accelerate launch --multi_gpu --num_processes {trial.processes}"
        )
    if compressed and formed > 1 and not adds_up_bf16(accelerator.device):
        raise UsageError(
            f"--gradient-compression is bf16, which {torch.distributed.get_backend()} of torch {torch.__version__} "
            f"cannot add up; give none"
        )
    # Also on GPUs: torchrun leaves each rank one thread, a fork of a process that has its imports all of them.
    torch.set_num_threads(max(1, environment.cpu_count() // local_processes()))
    return accelerator


def numbered(device: torch.device) -> torch.device:
    """The device with its number, which Accelerate leaves out for one process alone and a limit on memory wants."""
    alone = device.type == "cuda" and device.index is None
    return torch.device("cuda", torch.cuda.current_device()) if alone else device


def patience() -> datetime.timedelta:
    """For how long a rank waits in a collective for the others, until torch ends it."""
    return PATIENCE_OF_LAUNCHERS if os.environ.get(LAUNCH_ID) else PATIENCE_BY_HAND


def meet() -> None:
    """Form the group over a file where the launcher gave one; else Accelerate does, over TCP."""
    if not (path := os.environ.get(STORE)) or in_group():
        return
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group(
        "nccl" if uses_cuda() else "gloo",
        store=torch.distributed.FileStore(path, processes),
        rank=rank,
        world_size=processes,
        timeout=patience(),
    )


def adds_up_bf16(device: torch.device) -> bool:
    """Whether the group's backend can all-reduce bf16, tried on one number. All ranks ask at once."""
    one = torch.ones(1, dtype=torch.bfloat16, device=device)
    try:
        torch.distributed.all_reduce(one)
    except (RuntimeError, ValueError, TypeError):  # as the backends say that they do not know the format
        return False
    return True
