"""The Accelerate command that starts a trial's process group. Imports no torch."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import experiments, own_file
from bench.called import module_command, module_words
from bench.data import class_folders
from bench.errors import UsageError
from bench.machine.environment import version
from bench.machine.gpus import built_for, has_distributed
from bench.machine.gpus import visible as visible_gpus
from bench.options import Options
from bench.trial import FIXED, Trial, check_device_settings, option
from models import names

# The suite's own configuration file: what a user once answered to `accelerate config` must not change a measurement.
CONFIG = Path(__file__).with_name("accelerate.json")
# Settings that are passed even if they equal the arm's: bench.cli would derive another default for them (from
# --processes, --data or the environment).
ALWAYS_PASSED = ("processes", "precision", "weights", "micro_batch", "evaluate_on")
# Variables that a trial's processes must not inherit. If this process is itself in a group (torchrun, mpirun, Slurm),
# they would take its rank for theirs; and of Accelerate's variables, one divides the loss.
FOREIGN = re.compile(
    r"(ACCELERATE|TORCHELASTIC|PET|MASTER|PMI|MPI|OMPI_COMM_WORLD|MV2_COMM_WORLD)_.*"
    r"|((NODE|GROUP|ROLE|LOCAL)_)?(RANK|WORLD_SIZE)"
)


def gpu_count() -> int:
    """GPUs that a trial can use."""
    return len(visible_gpus())


def starts_cold(gpus: int) -> bool:
    """Whether trials on GPUs need a fresh process, because the GPU's runtime would be initialised before the fork.

    A fork cannot use a runtime that its parent has initialised. Accelerate before 1.14 initialises CUDA's before it
    forks the ranks (huggingface/accelerate#3925); AMD's is always initialised.
    """
    old = re.match(r"0\.|1\.([0-9]|1[0-3])\.", version("accelerate") or "")
    return gpus > 0 and ("hip" in built_for() or old is not None)


def check(trial: Trial, gpus: int) -> None:
    """Raises UsageError if this machine cannot run the trial, before any process is started."""
    own_file.check(trial)
    class_folders.check(trial)
    if importlib.util.find_spec("accelerate") is None:
        raise UsageError(f"accelerate is not installed for {sys.executable}; run make setup, or pip install -e .")
    if trial.processes > 1 and not has_distributed():
        raise UsageError(
            f"--processes is {trial.processes} but torch {version('torch')} is built without distributed; give 1, "
            f"or install one that has it"
        )
    per_machine = trial.processes // trial.machines
    if gpus and per_machine > gpus:
        each = f", {per_machine} on each machine," if trial.machines > 1 else ""
        raise UsageError(
            f"--processes is {trial.processes}{each} but this machine has {gpus} GPU(s); give at most "
            f"{gpus * trial.machines}, or ACCELERATE_USE_CPU=true to use the CPU"
        )
    if trial.precision == "fp16" and not gpus:
        raise UsageError("--precision fp16 needs a CUDA device, and Accelerate ignores it on a CPU; use bf16 or no")
    if not gpus:
        check_device_settings(trial)
    published = trial.weights.startswith("IMAGENET") or names.is_timm(trial.model)  # timm says which it has
    if trial.weights != "none" and not published and not os.path.isfile(trial.weights):
        raise UsageError(
            f"no file {trial.weights!r} for --weights; give none, IMAGENET1K_V1, IMAGENET1K_V2 or a state dict's path"
        )


@dataclass(frozen=True)
class NodeAddress:
    """Which of a trial's machines this is, and the address of machine 0, where the processes of all meet."""

    machine: int = 0
    address: str = "127.0.0.1"
    port: int = 0


@dataclass(frozen=True)
class Work:
    """What each process of a group runs: `python -m MODULE WORDS`."""

    module: str
    words: list[str]


def work_of(trial: Trial, options: Options) -> Work:
    """The trial itself. What depends on the user's own files names the key, by which it knows whether they changed."""
    both = [*words(trial), *option_words(options)]
    key = ["--trial-key", trial.key()]
    if trial.experiment_file:
        return Work("bench.cli", [trial.experiment_file, *key, *both])
    return Work(f"bench.experiments.{trial.experiment}", [*key, *both] if trial.data_contents else both)


def accelerate_command(
    trial: Trial, options: Options, gpus: int, node: NodeAddress = NodeAddress(), work: Work | None = None
) -> tuple[dict[str, str], list[str]]:
    """(environment variables to add, the command) that start the trial's group, on GPUs or as a gloo group on the CPU.

    `work`: what the group runs in place of the trial.

    Two processes on a CPU need both --multi_gpu and ACCELERATE_USE_CPU: `--cpu --num_processes 2` starts one process,
    and --multi_gpu alone two unconnected ones. On GPUs, CUDA numbers devices in PCI order, as NVML does, unless the
    user has chosen another order.
    """
    command = module_command("accelerate.commands.launch", "--config_file", str(CONFIG))
    command += ["--num_processes", str(trial.processes), "--num_machines", str(trial.machines)]
    command += ["--mixed_precision", trial.precision, "--dynamo_backend", "no"]
    if trial.machines > 1:
        command += ["--multi_gpu", "--same_network", "--machine_rank", str(node.machine)]
        command += ["--main_process_ip", node.address, "--main_process_port", str(node.port)]
    elif trial.processes > 1:
        command += ["--multi_gpu", "--main_process_port", "0"]  # 0: any free port
    elif not gpus:
        command += ["--cpu"]
    work = work or work_of(trial, options)
    command += [*module_words(work.module), *work.words]
    on_gpus = {} if "CUDA_DEVICE_ORDER" in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return (on_gpus if gpus else {"ACCELERATE_USE_CPU": "true"}), command


def inherited() -> dict[str, str]:
    """The environment variables that a trial's processes inherit."""
    return {name: value for name, value in os.environ.items() if not FOREIGN.fullmatch(name)}


def words(trial: Trial) -> list[str]:
    """The options that turn the arm's settings into this trial's."""
    arm = experiments.of(trial).trial(trial.experiment, trial.arm).settings()
    result = ["--arm", trial.arm]
    for name, value in trial.settings().items():
        if name not in FIXED and (value != arm[name] or name in ALWAYS_PASSED):
            result += [option(name), *_spelled(value)]
    return result


def option_words(options: Options) -> list[str]:
    """The options that are not a trial's settings."""
    result = ["--out", str(options.out), "--data-root", str(options.data_root)]
    result += ["--resume"] if options.resume else []
    result += ["--log-with", *options.log_with] if options.log_with else []
    result += ["--trace"] if options.trace else []
    return result + ([] if options.checkpoint else ["--no-checkpoint"])


def _spelled(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, tuple) else [str(value)]
