"""The options --device, --memory-limit, --reserve and --skip-over-limit. Imports torch only to predict a trial."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import UsageError
from bench.machine.environment import flag, version
from bench.machine.gpus import built_for
from bench.options import take_option
from bench.trial import Trial
from launch.group import accelerate_command
from launch.memory import devices

SKIP = "--skip-over-limit"
GIB = 2**30


def take_device(words: Sequence[str]) -> tuple[int, list[str]]:
    """(number of GPUs to run on, 0 for the CPU; the other words). Raises UsageError if the device is not here."""
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
            "--device is cuda but no GPU can be used here (see CUDA_VISIBLE_DEVICES, ACCELERATE_USE_CPU); "
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
    """The words with --memory-limit-bytes, the field of Trial, in place of --memory-limit and --reserve."""
    reserve, words = take_option(words, "--reserve")
    limits, rest = take_option(words, "--memory-limit")
    if limits is None:
        if reserve is not None:
            raise UsageError("--reserve needs --memory-limit")
        return rest
    refuse_bytes(rest)
    budgets = [devices.budget(limit, reserve, gpus, processes=processes(rest)).bytes for limit in limits.split(",")]
    # In the same position, as the order of axes is the order of trials.
    index = next(index for index, word in enumerate(words) if word.partition("=")[0] == "--memory-limit")
    return [*rest[:index], "--memory-limit-bytes", ",".join(map(str, budgets)), *rest[index:]]


def refuse_bytes(words: Sequence[str]) -> None:
    """Raises UsageError if the limit is also given as the field of Trial."""
    if any(word.partition("=")[0].replace("_", "-") == "--memory-limit-bytes" for word in words):
        raise UsageError("--memory-limit stands for --memory-limit-bytes; give one of them")


def processes(words: Sequence[str]) -> int:
    """The largest number of --processes: so many share a CPU's memory."""
    value, _ = take_option(words, "--processes")
    return max((int(number) for number in (value or "").split(",") if number.isdecimal() and int(number)), default=1)


def take_flag(words: Sequence[str], name: str) -> tuple[bool, list[str]]:
    """(whether the option is given, the other words)."""
    return name in words, [word for word in words if word != name]


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
