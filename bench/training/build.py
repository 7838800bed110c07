"""From a trial to its model and optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from bench import own_file
from bench.data.datasets import download_limits
from bench.errors import UsageError
from bench.trial import Trial
from models import ModelError, backbone, checkpointing, cifar, imagenet, names, surgery, weights
from models.names import OWN
from models.resnet34 import resnet34

Build = Callable[[Trial, int], nn.Module]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # of mixed precision


def model_for(trial: Trial, classes: int) -> nn.Module:
    """The trial's model, on the CPU.

    Reproducible: all random numbers come from the trial's seed. Raises UsageError if the weights or a named module do
    not exist.
    """
    torch.manual_seed(trial.seed)
    try:
        if trial.model == OWN:
            model = _own(trial, classes)
        else:
            model = _backbone(trial, classes)
            # In this order: replaced blocks draw from the seed before the head, and `freeze` has to see all of them.
            surgery.replace_blocks(model, trial.replace_blocks, trial.replaced_skip)
            surgery.replace_head(model, classes, trial.head, trial.dropout)
        surgery.add_dropout(model, trial.body_dropout_after, trial.body_dropout)
        surgery.freeze(model, trial.trainable, trial.batch_norm)
        surgery.leave_uncounted(model)
        if trial.checkpoint_activations != "none":
            checkpointing.checkpoint_activations(model, trial.checkpoint_activations)
    except ModelError as error:
        raise UsageError(str(error)) from error
    return model


def _own(trial: Trial, classes: int) -> nn.Module:
    """The model of the user's own file, as it starts. Raises UsageError if the file builds none."""
    own_file.check(trial)
    build = own_file.function(trial, "model")
    with own_file.line_named(trial.experiment_file):
        model = build(trial, classes)
    if not isinstance(model, nn.Module):
        found = type(model).__name__
        raise UsageError(
            f"model(trial, classes) in {trial.experiment_file} returns a {found}; return a torch.nn.Module"
        )
    mode = model.training
    with torch.no_grad(), own_file.line_named(trial.experiment_file):
        shape = tuple(model.eval()(torch.zeros(2, 3, trial.image_size, trial.image_size)).shape)
    model.train(mode)
    if shape != (2, classes):  # the matrix of evaluation counts would be another's
        raise UsageError(
            f"the model of {trial.experiment_file} makes {shape} of 2 images; give it outputs of shape (N, {classes})"
        )
    if trial.weights != "none":
        weights.load_whole(model, weights.as_saved(weights.read(trial.weights), trial.weights), trial.weights)
    return model


def _backbone(trial: Trial, classes: int) -> nn.Module:
    """The model with its starting weights, before any surgery."""
    if names.is_timm(trial.model):
        from models import from_timm

        with download_limits():
            return from_timm.network(trial.model, trial.weights)
    if not names.is_ours(trial.model):
        with download_limits():
            return imagenet.network(trial.model, trial.weights)
    state = None if trial.weights == "none" else weights.read_state_dict(trial.weights)
    if state is not None:
        classes = weights.head_classes(state)
    if trial.model == names.HANDBUILT:
        model = resnet34(trial.shortcut, classes)
    elif trial.model == "resnet18_cifar":
        model = cifar.resnet18(trial.shortcut, classes)
    else:
        model = cifar.resnet(int(trial.model.removeprefix("resnet")), trial.shortcut, classes)
    if state is not None:
        weights.load(model, state, trial.weights)
    return model


def place(model: nn.Module, trial: Trial, device: torch.device) -> nn.Module:
    """The model on its device, in the trial's memory format."""
    layout = torch.channels_last if trial.memory_format == "channels_last" else torch.contiguous_format
    return model.to(device, memory_format=layout)  # type: ignore[call-overload]


def trained_part(trial: Trial, model: nn.Module) -> nn.Module:
    """What micro-batches go through: the model, or its head if the features before it are computed once.

    The head is the one child of a module of its own: Accelerate gives that its autocast, whose results are float32.
    Raises UsageError if an image's features would not be the same each time.
    """
    if trial.features == "each_epoch":
        return model
    try:
        backbone.check_fixed(model)
        return nn.Sequential(surgery.head(model))
    except ModelError as error:
        raise UsageError(f"--features is once, but {error}") from error


def updated_model(trial: Trial, model: nn.Module, build: Build, classes: int) -> nn.Module:
    """The model whose parameters the optimizer updates.

    With optimizer_holds=another_model, which repeats a published mistake, it is a second model: the same backbone
    without replaced blocks, of which only its own head trains.
    """
    if trial.optimizer_holds == "this_model":
        return model
    other = dataclasses.replace(trial, replace_blocks=(), trainable=("head",), checkpoint_activations="none")
    return build(other, classes)


def keeps_casts(trial: Trial) -> bool:
    """Whether the casts of weights are kept from one micro-batch of a window to the next.

    Compiled code does its own. Where blocks are recomputed, torch's autocast drops all casts after each, in a thread of
    the backward pass that knows of no outer context.
    """
    return trial.precision != "no" and trial.compile == trial.checkpoint_activations == "none"


def optimizer_for(trial: Trial, model: nn.Module) -> torch.optim.Optimizer:
    """SGD over the trainable parameters of this model."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fused = parameters[0].device.type in ("cpu", "cuda")
    optimizer = torch.optim.SGD(
        parameters, lr=trial.lr, momentum=trial.momentum, weight_decay=trial.weight_decay, fused=fused
    )
    if trial.momentum:
        # Zeros are what the first step starts from. torch's fused first step takes uninitialised memory for them, and
        # leaves it so if fp16's loss scaling skips that step.
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
