"""What a process trains on: CUDA devices or the CPU, and never the CPU because a GPU cannot be used."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator

import torch
from accelerate.utils import patch_environment

from bench.errors import UsageError
from bench.machine import environment, gpus
from bench.trial import Trial
from bench.variables import LAUNCH_ID


def check_devices(trial: Trial) -> None:
    """UsageError: this machine cannot run the trial's processes or its precision."""
    cuda = uses_cuda()
    if trial.processes > 1 and not torch.distributed.is_available():
        raise UsageError(
            f"--processes is {trial.processes} but torch {torch.__version__} is built without distributed; give 1"
        )
    if trial.precision == "fp16" and not cuda:
        raise UsageError("--precision fp16 needs a CUDA device, and Accelerate ignores it on a CPU; use bf16 or no")
    if cuda and local_processes() > torch.cuda.device_count():
        raise UsageError(
            f"--processes is {trial.processes} but this machine has {torch.cuda.device_count()} CUDA device(s); "
            f"give at most that many"
        )
    if cuda and trial.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UsageError(f"--precision bf16 is not supported by {torch.cuda.get_device_name()}; use fp16 or no")


def uses_cuda() -> bool:
    """Whether CUDA devices are to be used, not the CPU. UsageError: there are GPUs that torch cannot use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of is said here
        if torch.cuda.is_available() and not environment.flag("ACCELERATE_USE_CPU"):
            return True
    if unused := gpus.visible():
        raise UsageError(
            f"this machine has {len(unused)} GPU(s) but torch {torch.__version__} {why_unused()}; mend that, or set "
            f"ACCELERATE_USE_CPU=true to use the CPU"
        )
    return False


def why_unused() -> str:
    """What keeps torch from the GPUs, in its own words as far as it has any."""
    if not (torch.version.cuda or torch.version.hip):
        return "is built without CUDA"
    try:
        torch.cuda.init()
    except RuntimeError as error:
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
        return f"({built}) cannot use them: {' '.join(str(error).split()).partition('. ')[0]}"
    return "finds none of them"


def local_processes() -> int:
    """Processes of the group on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextlib.contextmanager
def without_nvidia_smi() -> Iterator[None]:
    """Nothing is found on the PATH in here, if a launcher of Accelerate's has looked before.

    Accelerate asks nvidia-smi whether NCCL can do peer-to-peer on these GPUs, in its launcher, which switches that off
    where it cannot, and once more in every rank, where it is an error if nobody did, also of a rank that has no peer.
    """
    with patch_environment(PATH=os.devnull) if os.environ.get(LAUNCH_ID) else contextlib.nullcontext():
        yield
