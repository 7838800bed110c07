"""Is what a row will say of its settings what runs? Confirmed before anything is measured.

`setup` looks at what was set up, `FirstStep` at the first step's images, number formats, gradients, recomputed blocks
and compiled graphs.
A setting that did not happen is a UsageError which names what was asked for and what was found: no row is written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.data.pipeline import Batch
from bench.errors import UsageError
from bench.instruments.recomputation import recomputing
from bench.machine.backends import Allowed, allowed
from bench.machine.memory_limit import Limit
from bench.training.build import DTYPES
from bench.training.group import Group
from bench.training.loop import Training
from bench.trial import Trial, option
from models import surgery

# With any of these, torch.compile leaves the model as it is, or does so when it fails.
WITHOUT_COMPILER = ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE", "TORCHDYNAMO_SUPPRESS_ERRORS")
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def contradiction(name: str, trial: Trial, found: str) -> UsageError:
    """The error for a setting that did not happen."""
    return UsageError(f"{option(name)} is {getattr(trial, name)}, but {found}")


def setup(trial: Trial, group: Group, training: Training, limit: Limit | None) -> None:
    """Compare the settings with what has been set up. Raises UsageError at the first that differs."""
    if group.accelerator.mixed_precision != trial.precision:
        raise contradiction("precision", trial, f"Accelerate has {group.accelerator.mixed_precision}")
    for name, parameter in training.module.named_parameters():
        if not lies_on(parameter, group.device):
            raise UsageError(f"the trial runs on {group.device}, but {name} is on {parameter.device}; build it there")
        if parameter.ndim == 4 and not has_layout(parameter, trial):
            raise contradiction("memory_format", trial, f"{name} has strides {parameter.stride()}")
    trains = {id(parameter) for parameter in training.module.parameters() if parameter.requires_grad}
    updates = {id(parameter) for each in training.optimizer.param_groups for parameter in each["params"]}
    if trial.optimizer_holds == "this_model" and trains != updates:
        raise contradiction(
            "trainable", trial, f"{len(trains)} parameters train and the optimizer updates {len(updates)}"
        )
    if limit is not None and limit.bytes is not None and (held := limit.in_force()) not in (None, limit.bytes):
        raise contradiction("memory_limit_bytes", trial, f"{held} bytes are in force")


def lies_on(tensor: Tensor, device: torch.device) -> bool:
    """Whether the tensor is on this device. A CPU may have a number or none."""
    return tensor.device.type == device.type and (device.type == "cpu" or tensor.device.index == device.index)


def has_layout(tensor: Tensor, trial: Trial) -> bool:
    """Whether images or weights (N, C, H, W) lie in memory as --memory-format says."""
    return tensor.is_contiguous(memory_format=LAYOUTS[trial.memory_format])


class FirstStep:
    """Watches this process's first step, which `check` then judges. Later steps are as if it had never been there."""

    def __init__(self, trial: Trial, training: Training, device: torch.device) -> None:
        self.trial, self.training, self.device = trial, training, device
        self.found: dict[str, torch.dtype] = {}  # of what a layer computed
        self.graphs, self.frames = graphs(), frames_lost()
        self.checked = False
        self.keeps: list[str] = []  # blocks with a backward pass
        self.recomputed: set[str] = set()  # blocks of which something ran again in it
        self.hooks = []
        if trial.compile == "none":
            self.hooks += [self._watch(layer) for layer in layers(training.module)]
            for name, block in surgery.blocks(training.module).items():
                self.hooks += self._watch_block(name, block)

    def _watch(self, layer: tuple[str, nn.Module]) -> Any:
        name, module = layer

        def note(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self.found.setdefault(name, output.dtype)

        return module.register_forward_hook(note)

    def _watch_block(self, name: str, block: nn.Module) -> list[Any]:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.requires_grad:
                self.keeps.append(name)

        def note_again(*_: Any) -> None:
            if recomputing():
                self.recomputed.add(name)

        layers = [each for each in block.modules() if not list(each.children())]
        return [block.register_forward_hook(note), *(layer.register_forward_hook(note_again) for layer in layers)]

    def watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same micro-batches. Raises UsageError if the images of the trial's first one are not as they should be.

        None is fetched before it is asked for, nor kept: both would be memory and time of the trial's.
        """
        for batch in batches:
            if not self.checked:
                self._images(batch[0])
            yield batch

    def _images(self, images: Tensor) -> None:
        if not lies_on(images, self.device):
            raise UsageError(f"the trial runs on {self.device}, but its images are on {images.device}")
        if images.ndim == 4 and not has_layout(images, self.trial):
            raise contradiction("memory_format", self.trial, f"the images have strides {images.stride()}")

    def check(self) -> None:
        """Call after the first step, again at any time. Raises UsageError at the first setting that did not happen."""
        if self.checked:
            return
        self.checked = True
        for hook in self.hooks:
            hook.remove()
        self._formats()
        self._frozen()
        if self.trial.compile == "none":
            self._recomputed()
        else:
            self._compiled()
        asked = Allowed(self.trial.tf32, self.trial.tf32, self.trial.cudnn_benchmark)
        if self.device.type == "cuda" and (actual := allowed()) != asked:
            raise UsageError(f"the trial asks for {asked}, but after its first step torch has {actual}")

    def _formats(self) -> None:
        asked = DTYPES.get(self.trial.precision, torch.float32)
        for name, dtype in self.found.items():
            if dtype != asked:
                raise contradiction("precision", self.trial, f"{name} computed in {dtype} on {self.device}")

    def _frozen(self) -> None:
        for name, parameter in self.training.module.named_parameters():
            if not parameter.requires_grad and parameter.grad is not None:
                raise contradiction("trainable", self.trial, f"{name}, which is frozen, has a gradient")
        evaluates = self.trial.batch_norm == "eval"
        for name, module in self.training.module.named_modules():
            frozen = isinstance(module, _BatchNorm) and module.affine and not module.weight.requires_grad
            if frozen and module.training is evaluates:
                mode = "evaluation" if evaluates else "training"
                raise contradiction("batch_norm", self.trial, f"{name}, which is frozen, is not in {mode} mode")

    def _recomputed(self) -> None:
        asked = self.trial.checkpoint_activations != "none"
        if asked and not self.keeps:
            raise contradiction("checkpoint_activations", self.trial, "no block has a backward pass")
        for name in self.keeps:
            if (name in self.recomputed) is not asked:
                found = f"{name} was {'not ' * asked}recomputed in the backward pass"
                raise contradiction("checkpoint_activations", self.trial, found)

    def _compiled(self) -> None:
        if graphs() > self.graphs and frames_lost() == self.frames:
            return
        names = [name for name in WITHOUT_COMPILER if os.environ.get(name)]
        part = "part of the model" if graphs() > self.graphs else "the model"
        found = f"torch ran {part} without compiling it"
        if names:
            found += f" ({', '.join(f'{name} is {os.environ[name]}' for name in names)}); unset {' '.join(names)}"
        raise contradiction("compile", self.trial, found if names else f"{found}; see the trial's log")


def layers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, module) of the first convolution and the last linear layer, which autocast casts; none of others."""
    named = list(module.named_modules())
    first = next(((name, each) for name, each in named if isinstance(each, nn.Conv2d)), None)
    last = next(((name, each) for name, each in reversed(named) if isinstance(each, nn.Linear)), None)
    return [layer for layer in (first, last) if layer is not None]


def graphs() -> int:
    """How many graphs torch has compiled in this process."""
    compiler = sys.modules.get("torch._dynamo.utils")
    return compiler.counters["stats"]["unique_graphs"] if compiler is not None else 0


def frames_lost() -> int:
    """How many functions torch began to compile and then runs as they are, since errors are suppressed."""
    compiler, config = sys.modules.get("torch._dynamo.utils"), sys.modules.get("torch._dynamo.config")
    if compiler is None or config is None or not config.suppress_errors:
        return 0
    return compiler.counters["frames"]["total"] - compiler.counters["frames"]["ok"]
