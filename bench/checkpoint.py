"""The state of a trial after an epoch, kept so that training goes on as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.train import Training
from bench.trial import Trial, UsageError


def path_for(out: Path, trial: Trial) -> Path:
    """Where the trial's checkpoint lies: one for each key and repeat."""
    return out / "checkpoints" / f"{trial.key()}-{trial.repeat}.pt"


def save(path: Path, training: Training, progress: dict[str, int]) -> None:
    """Write the model, the optimizer and the counts in one step. UsageError: the disk is full."""
    state = {
        "model": training.module.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.scaler.state_dict() if training.scaler else None,
        "progress": progress,
    }
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, scratch)
        os.replace(scratch, path)
    except (OSError, RuntimeError) as error:
        raise UsageError(f"cannot write checkpoint {path}: {error}; make room, or --no-checkpoint") from error
    finally:
        scratch.unlink(missing_ok=True)


def epoch(path: Path) -> int:
    """How many epochs it comes after. UsageError: it is damaged."""
    with _readable(path):
        return int(torch.load(path, mmap=True, weights_only=True)["progress"]["epoch"])


def restore(path: Path, training: Training) -> dict[str, int]:
    """Load what `save` wrote into the training, on every rank, and return the counts. UsageError: it is damaged."""
    device = next(training.module.parameters()).device
    with _readable(path):
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        training.module.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
        if training.scaler:
            training.scaler.load_state_dict(state["scaler"])
        return state["progress"]


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"cannot resume from {path}: {reason}; delete it to start afresh") from error
