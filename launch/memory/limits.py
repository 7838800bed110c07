"""The options of `launch run` that choose a device and limit memory. Imports no torch before a trial is predicted."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import UsageError
from bench.machine.environment import flag, version
from bench.machine.torch_build import built_for
from bench.options import take_option
from bench.trial import Trial
from launch.group import accelerate_command
from launch.memory import devices

SKIP = "--skip-over-limit"
GIB = 2**30


def take_device(words: Sequence[str]) -> tuple[int, list[str]]:
    """(GPUs to run on, 0: the CPU; the other words). UsageError: there are none, or no such device."""
    device, rest = take_option(words, "--device")
    if device not in (None, "auto", "cpu", "cuda"):
        raise UsageError(f"--device is {device!r}; choose from: auto, cpu, cuda")
    gpus = 0 if device == "cpu" else accelerate_command.gpu_count()
    if device != "cpu" and "xpu" in built_for() and not flag("ACCELERATE_USE_CPU"):
        raise UsageError(
            f"torch {version('torch')} is built for Intel GPUs, which the suite does not measure; give --device cpu "
            f"to use the CPU, or install a torch built for CUDA or ROCm"
        )
    if device == "cuda" and not gpus:
        raise UsageError(
            "--device is cuda but no GPU is to be had here (CUDA_VISIBLE_DEVICES and ACCELERATE_USE_CPU count too); "
            "choose from: auto, cpu"
        )
    return gpus, rest


def take_budget(words: Sequence[str]) -> tuple[devices.Budget, int, list[str]]:
    """(what tensors may take, GPUs to run on, the other words).

    Raises UsageError if no limit is given, or an impossible one.
    """
    device, _ = take_option(words, "--device")
    gpus, rest = take_device(words)
    text, rest = take_option(rest, "--memory-limit")
    refuse_bytes(rest)
    reserve, rest = take_option(rest, "--reserve")
    if text is None:
        raise UsageError("give --memory-limit: a device such as orin-nano-8gb, bytes such as 7.4GiB, or auto")
    return devices.budget(text, reserve, gpus, device == "cpu", processes(rest)), gpus, rest


def in_bytes(words: Sequence[str], gpus: int) -> list[str]:
    """The same words with --memory-limit and --reserve put as --memory-limit-bytes, the field of a trial."""
    reserve, words = take_option(words, "--reserve")
    limits, rest = take_option(words, "--memory-limit")
    if limits is None:
        if reserve is not None:
            raise UsageError(f"--reserve is {reserve} of no --memory-limit; give both")
        return rest
    refuse_bytes(rest)
    budgets = [devices.budget(limit, reserve, gpus, processes=processes(rest)).bytes for limit in limits.split(",")]
    place = next(place for place, word in enumerate(words) if word.partition("=")[0] == "--memory-limit")
    return [*rest[:place], "--memory-limit-bytes", ",".join(map(str, budgets)), *rest[place:]]


def refuse_bytes(words: Sequence[str]) -> None:
    """UsageError: the limit is given as the field of a trial too."""
    if any(word.partition("=")[0].replace("_", "-") == "--memory-limit-bytes" for word in words):
        raise UsageError("--memory-limit stands for --memory-limit-bytes; give one of them")


def processes(words: Sequence[str]) -> int:
    """The most processes that are asked for, which share a CPU's memory."""
    value, _ = take_option(words, "--processes")
    return max((int(number) for number in (value or "").split(",") if number.isdecimal() and int(number)), default=1)


def take_flag(words: Sequence[str], name: str) -> tuple[bool, list[str]]:
    """(whether it is there, the other words)."""
    return name in words, [word for word in words if word != name]


def over_limit(trial: Trial, gpus: int) -> str | None:
    """Why the trial does not fit its limit, by prediction; None: it does, or has none."""
    limit = trial.memory_limit_bytes
    if limit is None:
        return None
    from bench.memory import prediction

    found = prediction.predict(trial, "cuda" if gpus else "cpu", capability=devices.this_capability(gpus))
    if found.fits(limit):
        return None
    needed = f"{found.limited_bytes / GIB:.2f} GiB for the tensors of one process"
    return f"predicted {needed}, of a limit of {limit / GIB:.2f} GiB"
