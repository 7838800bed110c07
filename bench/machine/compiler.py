"""torch.compile: how a trial's model is compiled, and whether anything is."""

from __future__ import annotations

import sys

import torch
from torch import nn

from bench.errors import UsageError
from bench.trial import Trial

# Modes that record CUDA graphs, whose every replay writes to the same memory.
CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
RECORDED = "cudagraph_recorded_non_static_inputs"


def compile_model(module: nn.Module, trial: Trial) -> None:
    """Have the model compiled at its first call, if the trial says so; anew for each size of micro-batch.

    Were sizes left open after the second one, full micro-batches too would run code that is made for any.
    """
    if trial.compile != "none":
        module.compile(dynamic=False, mode=trial.compile)


def check_mode(trial: Trial, device: torch.device) -> None:
    """UsageError: the mode does nothing on this device."""
    if trial.compile == "reduce-overhead" and device.type != "cuda":
        raise UsageError("--compile reduce-overhead records CUDA graphs, and here is no CUDA device; give default")


def keeps_gradients(trial: Trial, device: torch.device) -> bool:
    """Whether gradients need memory of their own: a CUDA graph's next replay would overwrite those of the last pass."""
    return trial.compile in CUDA_GRAPHS and trial.accumulate > 1 and device.type == "cuda"


def steps_taken() -> int:
    """What torch's compiler has done in this process so far: where this grows, something was compiled.

    Among its steps are tracing, compiling forward and backward, tuning, loading what was compiled before, and recording
    CUDA graphs.
    """
    compiler = sys.modules.get("torch._dynamo.utils")  # slow to import
    if compiler is None:
        return 0
    # torch 2.6 times all of them but the recording.
    return sum(map(len, compiler.compilation_time_metrics.values())) + compiler.counters["inductor"][RECORDED]
