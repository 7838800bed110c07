"""TF32 and cuDNN's benchmark mode: set as the trial says, and confirmed."""

from __future__ import annotations

import os
import warnings
from typing import Any, NamedTuple

import torch

from bench.errors import UsageError
from bench.trial import Trial, check_device_settings

TF32_SINCE = (8, 0)  # compute capability
# NVIDIA documents it for debugging: 0 switches TF32 off, whatever a program sets; other values have no meaning yet.
OVERRIDE = "NVIDIA_TF32_OVERRIDE"


class Allowed(NamedTuple):
    """What torch allows its CUDA libraries to do."""

    tf32_in_convolutions: bool
    tf32_in_products: bool
    cudnn_benchmark: bool


def configure(trial: Trial, device: torch.device) -> None:
    """Set torch's CUDA libraries as the trial says, before the first of them runs. Raises UsageError if it cannot."""
    if device.type != "cuda":
        check_device_settings(trial)
        return
    if trial.tf32 and (reason := why_no_tf32(device)):
        raise UsageError(f"--tf32 True: {reason}; leave it out")
    apply(trial)
    if (actual := allowed()) != Allowed(trial.tf32, trial.tf32, trial.cudnn_benchmark):
        raise UsageError(
            f"torch {torch.__version__} did not accept --tf32 {trial.tf32} --cudnn-benchmark {trial.cudnn_benchmark}: "
            f"it has {actual}; leave them out"
        )


def why_no_tf32(device: torch.device) -> str | None:
    """Why this device does not compute in TF32; None: it does."""
    if torch.version.cuda is None:
        return "needs an NVIDIA GPU"
    if torch.cuda.get_device_capability(device) < TF32_SINCE:
        return f"{torch.cuda.get_device_name(device)} has none, which needs compute capability 8.0"
    if os.environ.get(OVERRIDE) == "0":
        return f"{OVERRIDE}=0 forbids it"
    return None


def apply(trial: Trial) -> None:
    """Set TF32 and benchmark mode, by torch's older names and by its newer ones.

    Parts of torch read the older names, parts the newer ones; where the two disagree, reading the older ones raises.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API", UserWarning)
        torch.set_float32_matmul_precision("high" if trial.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = trial.tf32
    for backend in _newer():
        backend.fp32_precision = "tf32" if trial.tf32 else "ieee"
    torch.backends.cudnn.benchmark = trial.cudnn_benchmark


def allowed() -> Allowed:
    """The settings as torch reports them."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if newer := _newer():
        convolutions, products = (backend.fp32_precision == "tf32" for backend in newer[1:])
        return Allowed(convolutions, products, cudnn.benchmark)
    return Allowed(cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark)


def _newer() -> list[Any]:
    """What has an fp32_precision, since torch 2.9: all of cuDNN, its convolutions, cuBLAS's products."""
    cudnn: Any = torch.backends.cudnn
    return [cudnn, cudnn.conv, torch.backends.cuda.matmul] if hasattr(cudnn, "conv") else []
