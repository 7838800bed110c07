"""How torch's CUDA libraries compute: in TF32 or not, and how cuDNN finds its algorithms. Set, and confirmed."""

from __future__ import annotations

import os
import warnings
from typing import Any, NamedTuple

import torch

from bench.errors import UsageError
from bench.trial import Trial, check_device_settings

TF32_SINCE = (8, 0)  # compute capability
# For debugging, says NVIDIA: 0 switches TF32 off whatever a program asks for; other values mean nothing yet.
OVERRIDE = "NVIDIA_TF32_OVERRIDE"


class Allowed(NamedTuple):
    """What torch lets its libraries do."""

    tf32_in_convolutions: bool
    tf32_in_products: bool
    cudnn_benchmark: bool


def configure(trial: Trial, device: torch.device) -> None:
    """Have the libraries compute as the trial says, before any of them does. UsageError: they would not."""
    if device.type != "cuda":
        check_device_settings(trial)
        return
    if trial.tf32 and (why := why_no_tf32(device)):
        raise UsageError(f"--tf32 True: {why}; leave it out")
    put(trial)
    if (found := allowed()) != Allowed(trial.tf32, trial.tf32, trial.cudnn_benchmark):
        raise UsageError(f"torch {torch.__version__} does not take --tf32 and --cudnn-benchmark: it has {found}")


def why_no_tf32(device: torch.device) -> str | None:
    """Why this device computes nothing in TF32, or None."""
    if torch.version.cuda is None:
        return "needs an NVIDIA GPU"
    if torch.cuda.get_device_capability(device) < TF32_SINCE:
        return f"{torch.cuda.get_device_name(device)} has none, which needs compute capability 8.0"
    if os.environ.get(OVERRIDE) == "0":
        return f"{OVERRIDE}=0 forbids it"
    return None


def put(trial: Trial) -> None:
    """Set what the trial says, by torch's older names and by its newer ones, so that all say the same: some of torch
    reads these, some those, and where they disagree the older ones raise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API", UserWarning)
        torch.set_float32_matmul_precision("high" if trial.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = trial.tf32
    for each in _newer():
        each.fp32_precision = "tf32" if trial.tf32 else "ieee"
    torch.backends.cudnn.benchmark = trial.cudnn_benchmark


def allowed() -> Allowed:
    """What torch now says."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if newer := _newer():
        convolutions, products = (each.fp32_precision == "tf32" for each in newer[1:])
        return Allowed(convolutions, products, cudnn.benchmark)
    return Allowed(cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark)


def _newer() -> list[Any]:
    """What has an fp32_precision, since torch 2.9: all of cuDNN, its convolutions, cuBLAS's products."""
    cudnn: Any = torch.backends.cudnn
    return [cudnn, cudnn.conv, torch.backends.cuda.matmul] if hasattr(cudnn, "conv") else []
