"""State dicts: from a file without running what is in it, and into a model without guessing."""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import ModelError


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors by name, on the CPU, of a file that torch.save wrote.

    The file holds a state dict, or a dict with one under "model" (our checkpoints). The "module." that DDP
    puts before every key is taken off, and names that others use for the same parts become torchvision's: linear for
    fc, shortcut and short_cut for downsample, stages that count from layer0. Nothing in the file is executed.
    ModelError for a file that is missing, damaged or anything else.
    """
    return state_dict_of(read(path), path)


def read(path: str | Path) -> Any:
    """What torch.save wrote, tensors and plain values, on the CPU. ModelError: the file is missing or damaged."""
    if not Path(path).is_file():
        raise ModelError(f"no weights file {path}; check the path")
    return _unpickle(path)


def state_dict_of(loaded: Any, path: str | Path) -> dict[str, Tensor]:
    """The state dict in what `read` gave of the path. ModelError: there is none."""
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict):
        loaded = loaded["model"]
    if not _is_state_dict(loaded):
        raise ModelError(f"{path} holds no state dict; save one with torch.save(model.state_dict(), path)")
    wrapped = all(key.startswith("module.") for key in loaded)
    bare = {key.removeprefix("module.") if wrapped else key: tensor for key, tensor in loaded.items()}
    from_zero = any(key.startswith("layer0.") for key in bare)
    return {_as_torchvision(key, from_zero): tensor for key, tensor in bare.items()}


def _as_torchvision(key: str, from_zero: bool) -> str:
    key = re.sub(r"^linear\.", "fc.", key)
    key = re.sub(r"\.(shortcut|short_cut)\.", ".downsample.", key)
    return re.sub(r"^layer(\d)\.", lambda found: f"layer{int(found[1]) + 1}.", key) if from_zero else key


def load(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """As `load_whole`, into a model whose head will be replaced.

    One exception makes any checkpoint of ours a backbone: where the model's fc is a single Linear and the
    state's head is a Sequential (fc.0.weight, fc.3.weight, ...), the state's fc.* are left out and the model
    keeps its own, fresh fc, because whoever gives weights replaces the head anyway (`surgery.replace_head`).
    """
    wanted = model.state_dict()
    given = dict(state)
    if "fc.weight" in wanted and _head_layers(given):
        given = {key: tensor for key, tensor in given.items() if not key.startswith("fc.")}
        given |= {key: tensor for key, tensor in wanted.items() if key.startswith("fc.")}
    load_whole(model, given, path)


def load_whole(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Copy `state`, read from `path`, into `model`: every key, with its very shape, and no other key.

    ModelError names the first key that does not match; the model is then unchanged.
    """
    wanted = model.state_dict()
    # A plain dict: without the metadata of a state dict, torch fills in counters that old files lack.
    given = dict(state)
    mismatch = _first_mismatch(wanted, given)
    if mismatch:
        raise ModelError(
            f"the weights in {path} do not fit this model: {mismatch}; choose the model they were made for"
        )
    model.load_state_dict(given)


def head_classes(state: Mapping[str, Tensor]) -> int:
    """How many classes the head of `state` tells apart: rows of fc.weight, or of a Sequential's last Linear.

    Build a model of so many classes and `load` fits. ModelError where there is no such head.
    """
    layers = _head_layers(state)
    weight = state.get(f"fc.{layers[-1]}.weight" if layers else "fc.weight")
    if weight is None or weight.ndim != 2:
        raise ModelError(
            f"weights whose first key is {next(iter(state), None)!r} have no fc.weight to count classes by; "
            "give the state dict of a ResNet"
        )
    return weight.shape[0]


def plain_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, with a head of one Linear called fc, also where it stood in a Sequential, as behind a Dropout."""
    layers = _head_layers(state)
    if len(layers) != 1:
        return dict(state)
    return {re.sub(rf"^fc\.{layers[0]}\.", "fc.", key): tensor for key, tensor in state.items()}


def hidden_layers(state: Mapping[str, Tensor]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """(widths of the head's hidden layers, their dropout), as `surgery.replace_head` takes them.

    A dropout's rate is in no state dict: it is 0 where the next Linear leaves no room for one, and else 0.5, which
    makes no difference to a model that does not train. ModelError: a weight of the head is no matrix.
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
    except Exception as error:  # The unpickler raises whatever the bytes lead it to.
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise  # A full machine is no fault of the file.
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
    found = (re.fullmatch(r"fc\.(\d+)\.weight", key) for key in state)
    return sorted(int(match[1]) for match in found if match)


def _first_mismatch(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    for key, tensor in wanted.items():
        if key not in given:
            # Files from before torch 0.4.1 have no such counters, and momentum 0.1 makes no use of them.
            if key.endswith("num_batches_tracked"):
                continue
            return f"{key} is missing"
        if given[key].shape != tensor.shape:
            return f"{key} has shape {tuple(given[key].shape)} where {tuple(tensor.shape)} is wanted"
    return next((f"{key} is unexpected" for key in given if key not in wanted), None)
