"""A network in two parts, backbone and head, where the backbone gives an image the same features each time."""

import random

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models import ModelError, surgery


class Tap(nn.Module):
    """Stands in for a head: keeps what the head would take."""

    def forward(self, features: Tensor) -> Tensor:
        self.features = features
        return features


def features(model: nn.Module, images: Tensor) -> Tensor:
    """What the model's head takes for these images, (N, F). The head does not run.

    Raises ModelError if the model does anything after its head, or if its head takes no vectors.
    """
    head, tap = surgery.head(model), Tap()
    name = next(path for path, module in model.named_modules() if module is head)
    model.set_submodule(name, tap)
    try:
        output = model(images)
    finally:
        model.set_submodule(name, head)
    if output is not getattr(tap, "features", None):
        raise ModelError(f"{type(model).__name__} goes on after its head {name}, whose input alone is no substitute")
    if tap.features.ndim != 2:
        shape = tuple(tap.features.shape[1:])
        raise ModelError(f"the head {name} of {type(model).__name__} takes {shape} for an image, and no vector")
    return tap.features


def check_fixed(model: nn.Module) -> None:
    """Raises ModelError for a layer outside the head that trains or, in training mode, depends on the batch."""
    model.train()
    inside = set(surgery.head(model).modules())
    for name, module in model.named_modules():
        if module in inside:
            continue
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            raise ModelError(f"{name} comes before the head and trains, which changes the features")
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise ModelError(f"{name} comes before the head and normalises with the statistics of each batch")


def random_states(device: torch.device) -> list[bytes]:
    """The states of all random numbers that layers on this device may draw. A layer that draws some changes one."""
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
    return [*(state.numpy().tobytes() for state in states), repr(random.getstate()).encode()]
