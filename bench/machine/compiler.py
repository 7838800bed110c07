"""torch.compile: compiling a trial's model, and noticing when something was compiled."""

from __future__ import annotations

import sys

import torch
from torch import nn

from bench.errors import UsageError
from bench.trial import Trial

# Modes that record CUDA graphs. Every replay of a graph writes to the same memory.
CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
RECORDED = "cudagraph_recorded_non_static_inputs"


def compile_model(module: nn.Module, trial: Trial) -> None:
    """Have the model compiled at its first call, if the trial says so, and again for each size of micro-batch.

    Not with dynamic sizes: then, after an epoch's short micro-batch, full ones would run slower code for any size.
    """
    if trial.compile != "none":
        module.compile(dynamic=False, mode=trial.compile)


def check_mode(trial: Trial, device: torch.device) -> None:
    """Raises UsageError if the mode does nothing on this device."""
    if trial.compile == "reduce-overhead" and device.type != "cuda":
        raise UsageError("--compile reduce-overhead records CUDA graphs, and there is no CUDA device; give default")


def keeps_gradients(trial: Trial, device: torch.device) -> bool:
    """Whether gradients need memory of their own, or the next replay of a CUDA graph would overwrite them."""
    return trial.compile in CUDA_GRAPHS and trial.accumulate > 1 and device.type == "cuda"


def steps_taken() -> int:
    """How many steps torch's compiler has taken in this process. If the number grows, something was compiled.

    Steps are tracing, compiling forward and backward, tuning, loading code that was compiled earlier, and recording
    CUDA graphs.
    """
    compiler = sys.modules.get("torch._dynamo.utils")  # slow to import; absent, nothing was compiled
    if compiler is None:
        return 0
    # The metrics have an entry for each step; only the recording of graphs has none in torch 2.6.
    return sum(map(len, compiler.compilation_time_metrics.values())) + compiler.counters["inductor"][RECORDED]
