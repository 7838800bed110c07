"""Checkpoints: a trial's state after an epoch. `restore` resumes training exactly, `load_model` takes the model."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from bench import experiments, own_file
from bench.data import datasets
from bench.errors import UsageError, one_line, reason
from bench.record.columns import OLDER
from bench.record.csvfile import cell
from bench.training import evaluation
from bench.training.build import model_for
from bench.training.loop import Training
from bench.trial import Trial
from models import ModelError, names, weights
from models.names import OWN


def path_for(out: Path, trial: Trial) -> Path:
    """The path of the trial's checkpoint: one for each key and repeat."""
    return out / "checkpoints" / f"{trial.key()}-{trial.repeat}.pt"


def save(path: Path, trial: Trial, training: Training, progress: dict[str, Any]) -> None:
    """Write settings, model, optimizer and counts atomically. Raises UsageError if the disk is full."""
    state = {
        "settings": trial.settings(),
        "model": training.module.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.scaler.state_dict() if training.scaler else None,
        "progress": progress,
    }
    # A new file that replaces the old one at once: if the process is killed while it writes, the old one stays.
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(scratch, "wb") as file:  # of a path of its own, torch says no more than that a position is unexpected
            torch.save(state, file)
        os.replace(scratch, path)
    except (OSError, RuntimeError) as error:
        why = one_line(error)
        raise UsageError(f"cannot write checkpoint {path}: {why}; make room, or give --no-checkpoint") from error
    finally:
        scratch.unlink(missing_ok=True)


def is_finished(path: Path, epochs: int) -> bool:
    """Whether a trial of so many epochs has no more to train after it. Raises UsageError if it is damaged."""
    with _readable(path):  # mmap: reads only the counts, not the tensors
        progress = torch.load(path, mmap=True, weights_only=True)["progress"]
        return progress["epoch"] >= epochs or progress.get("at_target", False)


def is_to_resume(path: Path, trial: Trial, has_launcher: bool) -> bool:
    """Whether the trial goes on from this checkpoint. Raises UsageError if it is damaged.

    The runner starts no trial that has its row. One that has finished its epochs all the same was killed before it
    wrote the row: it is run again.
    """
    return path.exists() and not (has_launcher and is_finished(path, trial.epochs))


def restore(path: Path, training: Training, trial: Trial) -> dict[str, Any]:
    """Load a checkpoint into the training, on every rank. Returns its counts.

    Raises UsageError if it is damaged, if it holds what is not finite, or if it leaves the trial nothing to train.
    """
    device = next(training.module.parameters()).device
    with _readable(path):
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        training.module.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
        if training.scaler:
            training.scaler.load_state_dict(state["scaler"])
        progress: dict[str, Any] = state["progress"]
        if wrong := evaluation.not_finite(training):
            raise ValueError(wrong)
    if progress["epoch"] >= trial.epochs:
        raise UsageError(f"--epochs is {trial.epochs}, which {path} has already; give more, or no --resume")
    if progress.get("at_target", False):
        target = trial.target_accuracy
        raise UsageError(f"--target-accuracy is {target}, which {path} has reached already; run without --resume")
    return progress


def load_model(path: Path, model_name: str | None = None, data: str | None = None) -> tuple[Trial, nn.Module]:
    """(a checkpoint's trial, its model), on the CPU, in evaluation mode.

    A trial with a model or data of the user's own needs that file as `model_name`: what a checkpoint names is not run.
    A file without settings (a bare state dict, or a checkpoint of an earlier version) needs the model's name. It is
    loaded as that model with projected shortcuts, no replaced block, and the hidden layers that its head has, trained
    on `data`, by default CIFAR-10.
    Raises UsageError if the file cannot be read, if it needs a name and none is given, or if it is of another model.
    """
    try:
        loaded = weights.read(path)
        settings = loaded.get("settings") if isinstance(loaded, dict) else None
        trial = _trial(settings, path) if isinstance(settings, dict) else None
        own = trial is not None and trial.model == OWN
        state = weights.as_saved(loaded, path) if own else weights.plain_head(weights.state_dict_of(loaded, path))
        trial = trial or _bare_trial(state, path, model_name, data)
        if OWN in (trial.model, trial.data):
            trial = _with_own_file(trial, path, model_name)
        elif model_name not in (None, trial.model):
            raise UsageError(f"{path} is of {trial.model}, not of {model_name}; leave --model out")
        classes = datasets.class_count(trial) if own else weights.head_classes(state)
        model = model_for(dataclasses.replace(trial, weights="none"), classes)
        weights.load_whole(model, state, path)
    except ModelError as error:
        raise UsageError(str(error)) from error
    return trial, model.eval()


def _trial(settings: dict[str, Any], path: Path) -> Trial:
    # Values that have another name since.
    renamed = {name: new[cell(settings[name])] for name, new in OLDER.items() if cell(settings.get(name)) in new}
    try:
        return Trial(**{**settings, **renamed})
    except (TypeError, ValueError, UsageError) as error:
        raise UsageError(
            f"the settings in {path} are not those of a trial here ({error}); use the version that wrote them"
        ) from error


def _with_own_file(trial: Trial, path: Path, given: str | None) -> Trial:
    """The trial with its experiment in the file that is given. UsageError: it is not what the trial was of."""
    if given is None or not own_file.is_path(given):
        raise UsageError(f"{path} is of {trial.experiment_file}, which is not run unless it is given; add --model FILE")
    found = experiments.load(given).base
    if found.experiment_hash != trial.experiment_hash:
        what = f"the hash {found.experiment_hash}, not {trial.experiment_hash}"
        raise UsageError(f"{path} is of an experiment's file, of which {given} has {what}; give the file of then")
    return dataclasses.replace(trial, experiment_file=found.experiment_file)


def _bare_trial(state: dict[str, torch.Tensor], path: Path, model_name: str | None, data: str | None) -> Trial:
    if model_name is None:
        raise UsageError(f"{path} does not say which model it is of; add --model, such as --model resnet20")
    head, dropout = weights.hidden_layers(state)
    size = 224 if names.is_imagenet(model_name) else Trial.image_size
    return Trial(model=model_name, head=head, dropout=dropout, image_size=size, data=cast(Any, data or Trial.data))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise UsageError(f"cannot resume from {path}: {reason(error)}; delete it to start afresh") from error
