"""What a process trains on: CUDA devices or the CPU. A GPU that torch cannot use is an error: no silent CPU run."""

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
    """Raises UsageError if this machine cannot run the trial's processes or its precision."""
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
    """Whether trials run on CUDA devices. Raises UsageError if there are GPUs that torch cannot use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the error below says the same
        if torch.cuda.is_available() and not environment.flag("ACCELERATE_USE_CPU"):
            return True
    if unused := gpus.visible():
        raise UsageError(
            f"this machine has {len(unused)} GPU(s) but torch {torch.__version__} {why_unused()}; fix that, or set "
            f"ACCELERATE_USE_CPU=true to use the CPU"
        )
    return False


def why_unused() -> str:
    """Why torch cannot use the GPUs, in its own words if it has any."""
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
    """Hide nvidia-smi from Accelerate, if one of its launchers has run it already.

    The launcher asks nvidia-smi whether NCCL can do peer-to-peer on these GPUs, and switches that off if not. Every
    rank asks once more, and raises if it is not switched off, even in a rank that has no peer.
    """
    with patch_environment(PATH=os.devnull) if os.environ.get(LAUNCH_ID) else contextlib.nullcontext():
        yield
