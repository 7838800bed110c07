"""State dicts: read from a file without executing its content, and loaded into a model only if they fit exactly."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import ModelError


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors by name, on the CPU, of a file that torch.save wrote.

    The file holds a state dict, or a dict with one under "model" (our checkpoints). DDP's prefix "module." is removed,
    and other names for the same parts become torchvision's: linear for fc, shortcut and short_cut for downsample,
    stages that count from layer0. Nothing in the file is executed.
    Raises ModelError for a file that is missing, damaged or anything else.
    """
    return state_dict_of(read(path), path)


def read(path: str | Path) -> Any:
    """What torch.save wrote, tensors and plain values, on the CPU. Raises ModelError if it is missing or damaged."""
    if not Path(path).is_file():
        raise ModelError(f"no weights file {path}; check the path")
    return _unpickle(path)


def state_dict_of(loaded: Any, path: str | Path) -> dict[str, Tensor]:
    """The state dict in what `read` returned for the path. Raises ModelError if there is none."""
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict):
        loaded = loaded["model"]
    if not _is_state_dict(loaded):
        raise ModelError(f"{path} holds no state dict; save one with torch.save(model.state_dict(), path)")
    # All keys or none: a module may itself be named "module".
    wrapped = all(key.startswith("module.") for key in loaded)
    bare = {key.removeprefix("module.") if wrapped else key: tensor for key, tensor in loaded.items()}
    from_zero = any(key.startswith("layer0.") for key in bare)
    return {_as_torchvision(key, from_zero): tensor for key, tensor in bare.items()}


def _as_torchvision(key: str, from_zero: bool) -> str:
    key = re.sub(r"^linear\.", "fc.", key)
    key = re.sub(r"\.(shortcut|short_cut)\.", ".downsample.", key)
    return re.sub(r"^layer(\d)\.", lambda found: f"layer{int(found[1]) + 1}.", key) if from_zero else key


def load(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """As `load_whole`, into a model whose head is replaced afterwards (`surgery.replace_head`).

    So any of our checkpoints can serve as a backbone: if the model's fc is a single Linear and the state's head is a
    Sequential (fc.0.weight, fc.3.weight, ...), the state's head is ignored and the model keeps its own.
    """
    expected = model.state_dict()
    if "fc.weight" in expected and _head_layers(state):
        state = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
        state |= {key: tensor for key, tensor in expected.items() if key.startswith("fc.")}
    load_whole(model, state, path)


def load_whole(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Copy `state`, read from `path`, into `model`. Its keys and shapes have to be exactly the model's.

    Raises ModelError, which names the first key that does not match or is not finite; the model is then unchanged.
    """
    if mismatch := _first_mismatch(model.state_dict(), state):
        raise ModelError(
            f"the weights in {path} do not fit this model: {mismatch}; choose the model they were made for"
        )
    if wrong := first_not_finite(state.items()):
        raise ModelError(f"the weights in {path} are no trained model's: {wrong}; choose an earlier checkpoint")
    # A plain dict: without a state dict's version, torch fills in counters that old files lack.
    model.load_state_dict(dict(state))


def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The first value that is not finite, or running variance below 0, as a clause; None: there is none.

    Waits for the device once. Takes the memory of one tensor at a time at most.
    """
    numbers = [(name, tensor) for name, tensor in named if tensor.is_floating_point() and tensor.numel()]
    if not numbers:
        return None
    extremes = torch.stack([end.double() for _, tensor in numbers for end in tensor.detach().aminmax()]).tolist()
    for (name, _), low, high in zip(numbers, extremes[::2], extremes[1::2], strict=True):
        if not (math.isfinite(low) and math.isfinite(high)):
            return f"{name} holds {low if not math.isfinite(low) else high}"
        if name.endswith("running_var") and low < 0:
            return f"{name} holds {low:g}, which no variance is"
    return None


def head_classes(state: Mapping[str, Tensor]) -> int:
    """The number of classes of the state's head: rows of fc.weight, or of a Sequential's last Linear.

    A model with so many classes can `load` the state. Raises ModelError if there is no such head.
    """
    layers = _head_layers(state)
    weight = state.get(f"fc.{layers[-1]}.weight" if layers else "fc.weight")
    if weight is None or weight.ndim != 2:
        raise ModelError(
            f"weights whose first key is {next(iter(state), None)!r} have no fc.weight, which gives the number of "
            "classes; give the state dict of a ResNet"
        )
    return weight.shape[0]


def plain_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with a single Linear's head named fc, also if it was in a Sequential, as after a Dropout."""
    layers = _head_layers(state)
    if len(layers) != 1:
        return dict(state)
    return {re.sub(rf"^fc\.{layers[0]}\.", "fc.", key): tensor for key, tensor in state.items()}


def hidden_layers(state: Mapping[str, Tensor]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """(widths of the head's hidden layers, their dropout), as `surgery.replace_head` takes them.

    A state dict has no dropout rates. The rate is 0 if the index of the next Linear leaves no room for a Dropout, else
    0.5; it makes no difference to a model that does not train. Raises ModelError if a weight of the head is no matrix.
    """
    layers = _head_layers(state)
    for layer in layers:
        if state[f"fc.{layer}.weight"].ndim != 2:
            raise ModelError(f"fc.{layer}.weight is no matrix; give the state dict of a ResNet")
    widths = tuple(state[f"fc.{layer}.weight"].shape[0] for layer in layers[:-1])
    return widths, tuple(0.5 if after - layer > 2 else 0.0 for layer, after in itertools.pairwise(layers))


def _unpickle(path: str | Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many types of exceptions on damaged files
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise  # out of memory, which says nothing about the file
        raise ModelError(
            f"cannot read weights from {path} ({type(error).__name__}), which is damaged or holds more than "
            "tensors; get it again, or save model.state_dict() with torch.save"
        ) from error


def _is_state_dict(loaded: Any) -> bool:
    return (
        isinstance(loaded, dict)
        and len(loaded) > 0
        and all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in loaded.items())
    )


def _head_layers(state: Mapping[str, Tensor]) -> list[int]:
    """The indices of the Linear layers of a Sequential head, in order; empty for a single Linear."""
    matches = (re.fullmatch(r"fc\.(\d+)\.weight", key) for key in state)
    return sorted(int(match[1]) for match in matches if match)


def _first_mismatch(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """What is wrong with the first key that does not match; None: all match."""
    for key, tensor in expected.items():
        if key not in state:
            # Files from before torch 0.4.1 lack these counters. BatchNorm with a momentum does not use them.
            if key.endswith("num_batches_tracked"):
                continue
            return f"{key} is missing"
        if state[key].shape != tensor.shape:
            return f"{key} has shape {tuple(state[key].shape)} where {tuple(tensor.shape)} is expected"
    return next((f"{key} is unexpected" for key in state if key not in expected), None)
