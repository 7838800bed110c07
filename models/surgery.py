"""Changing a network in place: fresh blocks, another head, dropout, and which parts train.

Call `freeze` last: fresh blocks and a fresh head need gradients until it decides otherwise.
"""

import copy
import sys
from collections.abc import Collection, Sequence
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.regnet import ResBottleneckBlock
from torchvision.models.resnet import BasicBlock, Bottleneck

from models import ModelError
from models.blocks import PlainBasicBlock, PlainBottleneck, PlainResBottleneckBlock
from models.nearest import nearest

BatchNormMode = Literal["train", "eval"]


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm2d that stays in evaluation mode, whatever mode its model is in. Same state dict."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        super().train(False)
        return self


class UncountedBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm2d whose num_batches_tracked is advanced by `count_batches`. Same state dict, same values.

    With a momentum, training never reads the count, and on a GPU every increment is a kernel launch.
    """

    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        statistics = (self.running_mean, self.running_var)
        return F.batch_norm(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)


BATCH_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d, UncountedBatchNorm2d)


def leave_uncounted(model: nn.Module) -> None:
    """Turn every BatchNorm2d that has a momentum and running statistics into an UncountedBatchNorm2d."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d and module.momentum is not None and module.track_running_stats:
            module.__class__ = UncountedBatchNorm2d


def count_batches(model: nn.Module, batches: int) -> None:
    """Advance the counts of all UncountedBatchNorm2d in training mode by so many batches."""
    for module in model.modules():
        if isinstance(module, UncountedBatchNorm2d) and module.training:
            assert module.num_batches_tracked is not None
            module.num_batches_tracked += batches


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Name -> module of each residual block, such as "layer3.10", in the order of the forward pass."""
    kinds = _kinds()
    return {name: module for name, module in model.named_modules() if _kind(module, kinds)}


def replace_blocks(model: nn.Module, names: Sequence[str], skip: bool) -> None:
    """Replace each of the blocks `names`, such as "layer3.10", by a fresh one of the same shape.

    The fresh block has PyTorch's default initialisation. It adds its identity only with `skip`. Both kinds have the
    same state-dict keys and numbers of parameters, and the same values under one seed: without skip, the first block of
    a stage keeps its downsample but does not compute it. Those parameters need no gradient, because DDP fails on
    parameters that never get one.
    Raises ModelError, before anything is replaced, for a name that is no block, and for a skip around a block of a
    plain network that changes the shape.
    """
    found = blocks(model)
    for name in names:
        if not found:
            raise ModelError(f"no block {name!r}: this network has none that can be replaced; leave it out")
        if name not in found:
            raise ModelError(f"no block {name!r}; {nearest_are(name, found)}")
        # The block has no projection. In a plain network a change of channels always comes with a stride.
        if skip and _projection(found[name]) is None and getattr(found[name], "stride", 1) != 1:
            raise ModelError(
                f"{name} of this plain network changes the shape and cannot add its identity; leave it out"
            )
    for name in names:
        model.set_submodule(name, _fresh(found[name], skip))


def replace_head(model: nn.Module, classes: int, hidden: Sequence[int] = (), dropout: Sequence[float] = ()) -> None:
    """Replace `model.fc` by Linear, ReLU, [Dropout] for each hidden layer, and a Linear to `classes`, all fresh.

    hidden: widths. dropout: the probability of dropping a unit, in [0, 1): no value, one for all hidden layers, or one
    for each; 0 adds no Dropout. Raises ModelError for other numbers, and for a model without a Linear in `fc`.
    """
    if min((classes, *hidden)) < 1:
        raise ModelError(
            f"a head of {classes} classes and hidden widths {tuple(hidden)} has an empty layer; give 1 or more"
        )
    rates = _rates(hidden, dropout)
    old = next((m for m in getattr(model, "fc", nn.Identity()).modules() if isinstance(m, nn.Linear)), None)
    if old is None:
        raise ModelError(
            f"{type(model).__name__} has no Linear in fc; give a model from models.cifar or models.imagenet"
        )
    layers: list[nn.Module] = []
    width = old.in_features
    for out, rate in zip(hidden, rates, strict=True):
        layers += [nn.Linear(width, out), nn.ReLU(), *([nn.Dropout(rate)] if rate else [])]
        width = out
    layers.append(nn.Linear(width, classes))
    head = nn.Sequential(*layers) if hidden else layers[0]  # a single Linear keeps torchvision's keys
    model.fc = head.to(old.weight.device, old.weight.dtype).train(model.training)


def add_dropout(model: nn.Module, after: Sequence[str], rate: float) -> None:
    """Add dropout at this rate, in [0, 1), to the output of each of these modules, such as "layer2" or "maxpool".

    The state dict stays the same: a Dropout has no parameters. A rate of 0 adds none. Raises ModelError for another
    rate, an unknown module, and for modules of the head, whose dropout `replace_head` sets.
    """
    if not 0 <= rate < 1:
        raise ModelError(f"dropout {rate} is not in [0, 1); give the probability of dropping a unit")
    chosen = [_module(model, name) for name in after]
    for name in after:
        if name in ("all", "head") or name.split(".")[0] == "fc":
            raise ModelError(f"dropout after {name!r} is not in the body; give the head's rates as dropout")
    for module in chosen if rate else ():
        module.add_module("dropout_after", nn.Dropout(rate))
        if not isinstance(module, nn.Sequential):  # a Sequential calls the new child by itself, last
            module.register_forward_hook(_through_dropout)


def _through_dropout(module: nn.Module, args: object, output: Tensor) -> Tensor:
    return module.get_submodule("dropout_after")(output)


def freeze(model: nn.Module, trainable: Sequence[str], batch_norm: BatchNormMode) -> None:
    """Freeze all but `trainable`: "all", "head" (fc, or the module of that name), or modules with all their children,
    such as "layer4" or "layer3.10".

    batch_norm: the mode of the frozen part's BatchNorm layers. With "eval" they stay in evaluation mode even after
    model.train(), so that nothing in them changes; with "train" their running statistics change, as in many published
    notebooks.
    A downsample that a block without skip does not compute never trains.
    Raises ModelError for an unknown name or mode, if nothing would train, and with "eval" for a frozen BatchNorm of
    another kind than BatchNorm2d: in another class its own forward would be lost.
    """
    if batch_norm not in get_args(BatchNormMode):
        raise ModelError(f"no batch_norm {batch_norm!r}; choose from: {', '.join(get_args(BatchNormMode))}")
    chosen = [_module(model, name) for name in trainable]
    model.requires_grad_(False)
    for module in chosen:
        module.requires_grad_(True)
    for module in model.modules():
        _exclude_unused(module)  # after requires_grad_(True), which includes them
    if trainable_parameters(model) == 0:
        raise ModelError(f"nothing trains with trainable = {tuple(trainable)}; add head, a layer, or all")
    inside = {module for part in chosen for module in part.modules()}
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        trains = module.weight.requires_grad if module.affine else module in inside
        frozen = batch_norm == "eval" and not trains
        if type(module) in BATCH_NORMS:
            # A change of class keeps parameters, buffers and keys of the state dict.
            module.__class__ = FrozenBatchNorm2d if frozen else nn.BatchNorm2d
            module.train(model.training)
        elif frozen:
            raise ModelError(
                f"{name} is frozen and a {type(module).__name__}, which batch_norm eval cannot hold; give batch_norm "
                f"train, or train it"
            )


def head(model: nn.Module) -> nn.Module:
    """The model's head, that which "head" names. Raises ModelError if it has none."""
    return _module(model, "head")


def trainable_parameters(model: nn.Module) -> int:
    """The number of parameters that train."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def total_parameters(model: nn.Module) -> int:
    """The number of parameters, frozen ones included, without buffers."""
    return sum(p.numel() for p in model.parameters())


def _kinds() -> dict[type[nn.Module], type[nn.Module]]:
    """Kind of block -> the same without its identity."""
    kinds: dict[type[nn.Module], type[nn.Module]] = {
        BasicBlock: PlainBasicBlock,
        Bottleneck: PlainBottleneck,
        ResBottleneckBlock: PlainResBottleneckBlock,
    }
    if "timm.models.resnet" in sys.modules:  # else no model here is timm's
        from models import timm_blocks

        kinds |= {
            timm_blocks.BasicBlock: timm_blocks.PlainBasicBlock,
            timm_blocks.Bottleneck: timm_blocks.PlainBottleneck,
        }
    return kinds


def _kind(module: nn.Module, kinds: dict[type[nn.Module], type[nn.Module]]) -> type[nn.Module] | None:
    """The kind of block, whether it adds its identity or not; None: it is none."""
    return next((kind for kind, plain in kinds.items() if type(module) in (kind, plain)), None)


def _projection(block: nn.Module) -> nn.Module | None:
    """What a block's identity goes through, where that changes its shape."""
    return getattr(block, "proj" if isinstance(block, ResBottleneckBlock) else "downsample")


def _fresh(old: nn.Module, skip: bool) -> nn.Module:
    """A fresh block in place of `old`."""
    # A copy keeps stride, groups, width, downsample, device and dtype of any kind of block.
    block = copy.deepcopy(old)
    for module in block.modules():
        if type(module) in BATCH_NORMS:
            module.__class__ = nn.BatchNorm2d  # undoes an earlier `freeze`
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    kinds = _kinds()
    kind = _kind(block, kinds)
    assert kind is not None
    block.__class__ = kind if skip else kinds[kind]
    block.train(old.training)
    block.requires_grad_(True)
    _exclude_unused(block)
    return block


def _exclude_unused(module: nn.Module) -> None:
    if type(module) in _kinds().values() and (unused := _projection(module)) is not None:
        unused.requires_grad_(False)


def _rates(hidden: Sequence[int], dropout: Sequence[float]) -> Sequence[float]:
    """One rate for each hidden layer."""
    if any(not 0 <= rate < 1 for rate in dropout):
        raise ModelError(f"dropout {tuple(dropout)} is not in [0, 1); give the probability of dropping a unit")
    if len(dropout) == len(hidden):
        return dropout
    if not dropout:
        return (0.0,) * len(hidden)
    if len(dropout) == 1 and hidden:
        return tuple(dropout) * len(hidden)
    raise ModelError(f"{len(dropout)} dropout rates for {len(hidden)} hidden layers; give none or one for each")


def _module(model: nn.Module, name: str) -> nn.Module:
    modules = {path: module for path, module in model.named_modules() if path}
    modules |= {"all": model} | ({"head": modules["fc"]} if "fc" in modules else {})
    if name not in modules:
        raise ModelError(f"no module {name!r}; {nearest_are(name, modules)}")
    return modules[name]


def nearest_are(name: str, names: Collection[str]) -> str:
    """The names that are most like this one, as the end of an error's sentence."""
    return f"the nearest are: {', '.join(nearest(name, names, 5, 0))}"
