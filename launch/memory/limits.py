"""What --device, --memory-limit, --reserve and --skip-over-limit ask for. Imports torch only to predict a trial."""

from __future__ import annotations

import argparse

from bench.errors import UsageError
from bench.machine.environment import flag, version
from bench.machine.gpus import built_for
from bench.trial import Trial
from launch.group import accelerate_command
from launch.memory import devices

SKIP = "--skip-over-limit"
GIB = 2**30


def gpus(device: str | None) -> int:
    """The number of GPUs to run on, 0 for the CPU. Raises UsageError if the device is not here."""
    if device not in (None, "auto", "cpu", "cuda"):
        raise UsageError(f"--device is {device!r}; choose from: auto, cpu, cuda")
    found = 0 if device == "cpu" else accelerate_command.gpu_count()
    if device != "cpu" and "xpu" in built_for() and not flag("ACCELERATE_USE_CPU"):
        raise UsageError(
            f"torch {version('torch')} is built for Intel GPUs, which the suite does not measure; give --device cpu "
            f"to use the CPU, or install a torch built for CUDA or ROCm"
        )
    if device == "cuda" and not found:
        raise UsageError(
            "--device is cuda but no GPU can be used here (see CUDA_VISIBLE_DEVICES, ACCELERATE_USE_CPU); "
            "choose from: auto, cpu"
        )
    return found


def budget(options: argparse.Namespace, gpus: int) -> devices.Budget:
    """What tensors may take, by --memory-limit. Raises UsageError if it is an impossible one."""
    refuse_bytes(options)
    share = processes(options.processes)
    return devices.budget(options.memory_limit, options.reserve, gpus, options.device == "cpu", share)


def in_bytes(options: argparse.Namespace, gpus: int) -> list[str]:
    """The words of `options` with --memory-limit-bytes, the field of Trial, in place of --memory-limit.

    In the same position, as the order of axes is the order of trials.
    """
    words = list(options.words)
    if options.memory_limit is None:
        if options.reserve is not None:
            raise UsageError("--reserve needs --memory-limit")
        return words
    refuse_bytes(options)
    share = processes(options.processes)
    limits = options.memory_limit.split(",")
    budgets = [devices.budget(limit, options.reserve, gpus, processes=share).bytes for limit in limits]
    at = words.index("--memory-limit")
    words[at : at + 2] = ["--memory-limit-bytes", ",".join(map(str, budgets))]
    return words


def refuse_bytes(options: argparse.Namespace) -> None:
    """Raises UsageError if the limit is also given as the field of Trial."""
    if "memory_limit_bytes" in options.given:
        raise UsageError("--memory-limit stands for --memory-limit-bytes; give one of them")


def processes(given: str | None) -> int:
    """The largest number of --processes: so many share a CPU's memory."""
    return max((int(number) for number in (given or "").split(",") if number.isdecimal() and int(number)), default=1)


def over_limit(trial: Trial, gpus: int) -> str | None:
    """Why the trial is predicted not to fit its limit; None: it fits, or has no limit."""
    limit = trial.memory_limit_bytes
    if limit is None:
        return None
    from bench.memory import prediction

    footprint = prediction.predict(trial, "cuda" if gpus else "cpu", capability=devices.this_capability(gpus))
    if footprint.fits(limit):
        return None
    needed = f"{footprint.limited_bytes / GIB:.2f} GiB for the tensors of one process"
    return f"predicted {needed}, of a limit of {limit / GIB:.2f} GiB"
