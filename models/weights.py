"""State dicts: read from a file without executing its content, and loaded into a model only if they fit exactly."""

import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from models import ModelError

# Under which key a checkpoint keeps its state dict: ours and torchvision's references "model", Lightning's, timm's and
# PyTorch's ImageNet example "state_dict", PyTorch's tutorial "model_state_dict". Averages of the weights over time
# ("model_ema", timm's "state_dict_ema") are other weights than those that were trained; none of these keys.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
MOST_WRAPPERS = 8  # a dict in a file may hold itself
# What wraps a module puts its own name before all keys: DDP and DataParallel, torch.compile, a module that has it.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")
# A weight of any of these is a weight of any other, to rounding. Eight bits need a scale that a state dict lacks.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# How a file begins that git has checked out without Git LFS.
GIT_LFS = b"version https://git-lfs.github.com/spec/"


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors by name, on the CPU, of a file that torch.save wrote, or of safetensors (*.safetensors).

    The file holds a state dict, or a dict with one under a key of WRAPPERS. PREFIXES that all keys have are removed,
    and other names for the same parts become torchvision's: linear for fc, shortcut and short_cut for downsample,
    stages that count from layer0. Nothing in the file is executed.
    Raises ModelError for a file that is missing, damaged or anything else.
    """
    return state_dict_of(read(path), path)


def read(path: str | Path) -> Any:
    """What torch.save or safetensors wrote, tensors and plain values, on the CPU.

    Raises ModelError if it is missing, damaged or needs more than those.
    """
    if not os.path.isfile(path):  # Path.is_file raises where a name is too long, or its folder another user's
        raise ModelError(f"no weights file {path}; check the path")
    try:
        with open(path, "rb") as file:
            start = file.read(len(GIT_LFS))
    except OSError as error:
        raise ModelError(f"cannot read weights from {path}: {error.strerror}; check the path") from error
    if start == GIT_LFS:
        raise ModelError(f"{path} is Git LFS's pointer to the weights, which are elsewhere; run git lfs pull")
    return _safetensors(path) if Path(path).suffix == ".safetensors" else _unpickle(path)


def as_saved(loaded: Any, path: str | Path) -> dict[str, Tensor]:
    """The state dict in what `read` returned for the path, under the names that it was saved with.

    Raises ModelError if there is none, or more than one.
    """
    found = dict(_state_dicts(loaded))
    if len(found) > 1:
        raise ModelError(f"{path} holds state dicts under {' and '.join(found)}; save the one that is meant alone")
    if not found:
        keys = f" under {', '.join(WRAPPERS)}, but {_listed(loaded)}" if isinstance(loaded, dict) and loaded else ""
        raise ModelError(f"{path} holds no state dict{keys}; save one with torch.save(model.state_dict(), path)")
    return next(iter(found.values()))


def state_dict_of(loaded: Any, path: str | Path) -> dict[str, Tensor]:
    """As `as_saved`, under torchvision's names."""
    bare = _without_prefixes(as_saved(loaded, path))
    from_zero = any(key.startswith("layer0.") for key in bare)
    renamed: dict[str, str] = {}
    for key in bare:
        other = renamed.setdefault(_as_torchvision(key, from_zero), key)
        if other != key:
            raise ModelError(f"{path} holds both {other} and {key}, two names of one part; remove one")
    return {name: bare[key] for name, key in renamed.items()}


def _state_dicts(loaded: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(where, state dict) for each one in what a file holds."""
    if _is_state_dict(loaded):
        yield ".".join(at), loaded
    elif isinstance(loaded, dict) and len(at) < MOST_WRAPPERS:
        for key in WRAPPERS:
            yield from _state_dicts(loaded.get(key), (*at, key))


def _without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state under its bare keys. All keys have a prefix or none: a module may itself be named "module"."""
    # torch's AveragedModel, which wraps a module like DDP, counts in it what it has averaged.
    bare = {key: tensor for key, tensor in state.items() if key != "n_averaged"}
    while prefix := next((each for each in PREFIXES if bare and all(key.startswith(each) for key in bare)), None):
        bare = {key.removeprefix(prefix): tensor for key, tensor in bare.items()}
    return bare


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

    Its tensors have to be plain ones of the model's types; FLOATS go for one another.

    Raises ModelError, which names the first key that does not match or is not finite; the model is then unchanged.
    """
    expected = model.state_dict()
    for key, tensor in expected.items():
        # BatchNorm with a momentum does not use its counter, of which `.half()` on all of a state makes a float.
        whole = key.endswith("num_batches_tracked") and key in state and _is_whole(state[key])
        if kind := key in state and not whole and _wrong_kind(state[key], tensor.dtype):
            raise ModelError(f"{key} in {path} is {kind}; save it as a plain tensor of {tensor.dtype}")
    if mismatch := _first_mismatch(expected, state):
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
        if needed := re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error)):
            raise ModelError(
                f"cannot read weights from {path}, which holds more than tensors: {needed[1]}; if you trust it, open "
                "it with torch.load(path, weights_only=False) and save the state dict alone with torch.save"
            ) from error
        raise ModelError(
            f"cannot read weights from {path} ({type(error).__name__}), which is damaged or holds more than "
            "tensors; get it again, or save model.state_dict() with torch.save"
        ) from error


def _safetensors(path: str | Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError, KeyError) as error:  # KeyError: a type that torch lacks
        raise ModelError(f"cannot read weights from {path} ({error}), which is damaged; get it again") from error


def _is_state_dict(loaded: Any) -> bool:
    return (
        isinstance(loaded, dict)
        and len(loaded) > 0
        # A key is printed where it does not fit, and a terminal would obey what is in it.
        and all(isinstance(key, str) and key.isprintable() for key in loaded)
        and all(isinstance(tensor, Tensor) for tensor in loaded.values())
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


def _is_whole(tensor: Tensor) -> bool:
    """Whether it is one plain floating-point number without a fraction."""
    is_number = type(tensor) is Tensor and tensor.dtype in FLOATS and not tensor.is_meta and tensor.ndim == 0
    return is_number and float(tensor).is_integer()


def _wrong_kind(tensor: Tensor, expected: torch.dtype) -> str | None:
    """What a tensor is that cannot be copied into a plain one of the expected type as it is; None: it can be."""
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"a {type(tensor).__name__}, not a plain tensor"
    if tensor.is_meta:
        return "without data (on the meta device)"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "nested" if tensor.is_nested else f"{tensor.layout}, not dense".removeprefix("torch.")
    if tensor.dtype == expected or (tensor.dtype in FLOATS and expected in FLOATS):
        return None
    return f"{tensor.dtype} where {expected} is expected".replace("torch.", "")


def _listed(keys: Mapping[Any, Any]) -> str:
    """The first keys, as Python writes them."""
    first = [f"{key!r:.40}" for key in itertools.islice(keys, 6)]
    return ", ".join(first) + (" ..." if len(keys) > len(first) else "")
