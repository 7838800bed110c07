"""Activation checkpointing: a block or a stage keeps its input alone, and what its backward pass needs is recomputed.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", https://arxiv.org/abs/1604.06174.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from models import ModelError, surgery

Unit = Literal["block", "stage"]
# A module, and what computes its output.
Part = tuple[nn.Module, Callable[[Tensor], Tensor]]


def checkpoint_activations(model: nn.Module, unit: Unit) -> None:
    """Have each block, or each stage, of the model compute its forward pass again in the backward pass.

    Gradients and buffers are those without it. What comes before the first trainable parameter has no backward pass and
    is not recomputed. Call it after `surgery.freeze`. The state dict stays the same.
    Raises ModelError if the model has no blocks, and if none of them has a backward pass.
    """
    found = units(model, unit)
    if not _has_backward_pass(model, list(found)[-1]):
        raise ModelError(
            f"nothing trains up to the last {unit}, {list(found)[-1]}, so that none keeps anything for the backward "
            "pass; leave checkpointing out"
        )
    for module in found.values():
        # A Sequential's children one by one: those before the first that trains need no recomputation.
        parts: list[Part] = [(module, module.forward)]
        if unit == "stage" and isinstance(module, nn.Sequential):
            parts = [(child, child) for child in module]
        module.forward = functools.partial(_forward, parts)


def units(model: nn.Module, unit: Unit) -> dict[str, nn.Module]:
    """Name -> module of each block, such as "layer3.10", or of each stage, which is what holds blocks: "layer3".

    Raises ModelError for another unit, and if the model has none.
    """
    if unit not in get_args(Unit):
        raise ModelError(f"no unit {unit!r} to checkpoint; choose from: {', '.join(get_args(Unit))}")
    blocks = surgery.blocks(model)
    if not blocks:
        raise ModelError(f"{type(model).__name__} has no residual blocks to checkpoint; leave checkpointing out")
    if unit == "block":
        return blocks
    found = {stage: model.get_submodule(stage) for stage in dict.fromkeys(name.rpartition(".")[0] for name in blocks)}
    for stage, module in found.items():
        if not stage or isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            raise ModelError(f"the blocks of {type(model).__name__} are in no module that runs as a stage; give block")
    return found


def _forward(parts: Sequence[Part], x: Tensor) -> Tensor:
    """The parts' output, one after the other, without keeping what is between."""
    for index, (module, compute) in enumerate(parts):
        if torch.is_grad_enabled() and (x.requires_grad or _trains(module)):
            return _checkpointed(parts[index:], x)
        x = compute(x)
    return x


def _checkpointed(parts: Sequence[Part], x: Tensor) -> Tensor:
    def compute(x: Tensor) -> Tensor:
        for _, each in parts:
            x = each(x)
        return x

    if torch.compiler.is_compiling():  # the compiler moves running statistics once, and takes no such context
        return checkpoint(compute, x, use_reentrant=False)
    modules = [module for module, _ in parts]
    return checkpoint(compute, x, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), _still(modules)))


@contextlib.contextmanager
def _still(modules: Sequence[nn.Module]) -> Iterator[None]:
    """While entered, BatchNorm does what it did in the forward pass, but its running statistics and counts stay."""
    layers = [each for module in modules for each in module.modules() if isinstance(each, _BatchNorm) and each.training]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        # Not without running statistics: torch compares what both passes save, and they are among it.
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, (momentum, batches) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, batches


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _has_backward_pass(model: nn.Module, name: str) -> bool:
    """Whether something trains in this module, or before it: parameters are in the order of the forward pass."""
    trains = [(each, parameter.requires_grad) for each, parameter in model.named_parameters()]
    end = max(index for index, (each, _) in enumerate(trains) if each.startswith(f"{name}."))
    return any(requires for _, requires in trains[: end + 1])
