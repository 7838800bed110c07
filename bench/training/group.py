"""The process group of a trial: joining it, checking that it is the requested one, and exchanging values in it."""

from __future__ import annotations

import datetime
import os
import warnings

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DDPCommunicationHookType, GradientAccumulationPlugin, InitProcessGroupKwargs
from torch import Tensor, nn

from bench.errors import UsageError
from bench.instruments.collectives import in_group
from bench.machine import environment
from bench.machine.devices import check_devices, local_processes, uses_cuda, without_nvidia_smi
from bench.training import forming
from bench.trial import Trial
from bench.variables import LAUNCH_ID, STORE

# How long a rank waits for the others in a collective. By hand: as long as one rank may take to download a data set;
# forming the group has its own time (forming.FORM_S). A
# launcher ends a group that hangs (--stall-timeout) and records why; torch's own timeout would abort without a cause.
TIMEOUT_BY_HAND, TIMEOUT_WITH_LAUNCHER = datetime.timedelta(hours=1), datetime.timedelta(days=7)


class Group:
    """The process group as one of its processes sees it.

    `peers`: rank -> process id, of the processes on this machine, this one included.
    """

    def __init__(self, trial: Trial) -> None:
        """Join the group. Raises UsageError if it is not the requested one."""
        self.processes = trial.processes
        self.accelerator = join(trial)
        self.rank, self.device = self.accelerator.process_index, numbered(self.accelerator.device)
        first = self.rank - self.accelerator.local_process_index
        pids = self.gather([os.getpid()])[first : first + local_processes()]
        self.peers = {first + number: int(pid) for number, (pid,) in enumerate(pids)}

    def share_buffers(self, module: nn.Module) -> None:
        """Give every rank the BatchNorm statistics of rank 0, so that all evaluate the same model.

        DDP would broadcast them before every window. Once before evaluation is enough: training does not read them.
        """
        if in_group():
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, 0)

    def share_weights(self, module: nn.Module) -> None:
        """Give every rank the parameters and buffers of rank 0, as DDP does with what it wraps."""
        if in_group():
            for parameter in module.parameters():
                torch.distributed.broadcast(parameter.detach(), 0)
        self.share_buffers(module)

    def gather(self, numbers: list[float]) -> list[list[float]]:
        """Every rank's numbers, rank 0 first. All ranks give the same count; for none there is no collective."""
        if self.processes == 1 or not numbers:
            return [numbers] * self.processes
        mine = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        # Not Accelerate's gather, which makes newer torch print a warning.
        ranks = [torch.empty_like(mine) for _ in range(self.processes)]
        torch.distributed.all_gather(ranks, mine)
        return torch.stack(ranks).tolist()

    def gather_bytes(self, content: bytes) -> list[bytes]:
        """Every rank's bytes, of any length, rank 0 first."""
        if self.processes == 1:
            return [content]
        sizes = [int(size) for (size,) in self.gather([float(len(content))])]
        mine = torch.zeros(max(sizes), dtype=torch.uint8, device=self.device)
        mine[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        ranks = [torch.empty_like(mine) for _ in range(self.processes)]
        torch.distributed.all_gather(ranks, mine)
        return [rank[:size].cpu().numpy().tobytes() for rank, size in zip(ranks, sizes, strict=True)]

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over the ranks."""
        return self.accelerator.reduce(values, reduction="sum")


@without_nvidia_smi()
def join(trial: Trial) -> Accelerator:
    """Join the group that Accelerate's launcher set up. Raises UsageError if it is not the requested one."""
    check_devices(trial)
    arrival = forming.wait_for_all()
    init_over_file()
    # Newer torch renames broadcast_buffers; older torch, which we also run on, has only this name.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    compressed = trial.gradient_compression == "bf16"
    ddp = DistributedDataParallelKwargs(
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
        bucket_cap_mb=trial.bucket_mib,
        comm_hook=DDPCommunicationHookType.BF16 if compressed else DDPCommunicationHookType.NO,
    )
    # Every setting is given here. Accelerate takes others from environment variables, which may hold a factor of the
    # loss (gradient accumulation) or a compiler.
    accelerator = Accelerator(
        mixed_precision=trial.precision,
        dynamo_backend="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[ddp, InitProcessGroupKwargs(timeout=timeout())],
    )
    if accelerator.device.type not in ("cuda", "cpu"):  # Accelerate also chooses GPUs of Intel and Apple
        raise UsageError(
            f"Accelerate chose the device {accelerator.device}, but the suite measures CUDA devices and CPUs only; "
            f"set ACCELERATE_USE_CPU=true to use the CPU"
        )
    del arrival  # on rank 0 it kept the store in which all have met, until the group had its own hold on that
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
    # torchrun gives each rank one thread; a forked rank would have one for every CPU. Both get the same here.
    torch.set_num_threads(max(1, environment.cpu_count() // local_processes()))
    return accelerator


def numbered(device: torch.device) -> torch.device:
    """The device with its number, which a memory limit needs. Accelerate leaves it out for a single process."""
    alone = device.type == "cuda" and device.index is None
    return torch.device("cuda", torch.cuda.current_device()) if alone else device


def timeout() -> datetime.timedelta:
    """How long a rank waits for the others in a collective until torch aborts it."""
    return TIMEOUT_WITH_LAUNCHER if os.environ.get(LAUNCH_ID) else TIMEOUT_BY_HAND


def init_over_file() -> None:
    """Form the group over a file, if the launcher gave one; else Accelerate forms it over TCP."""
    if not (path := os.environ.get(STORE)) or in_group():
        return
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group(
        "nccl" if uses_cuda() else "gloo",
        store=torch.distributed.FileStore(path, processes),
        rank=rank,
        world_size=processes,
        timeout=timeout(),
    )


def adds_up_bf16(device: torch.device) -> bool:
    """Whether the group's backend can all-reduce bf16, tried on one number. All ranks call it together."""
    one = torch.ones(1, dtype=torch.bfloat16, device=device)
    try:
        torch.distributed.all_reduce(one)
    except (RuntimeError, ValueError, TypeError):  # what backends raise for a format that they do not know
        return False
    return True
