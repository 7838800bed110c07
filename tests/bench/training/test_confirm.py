"""A setting that did not happen is an error that names both sides, and no row."""

from __future__ import annotations

import functools
import os
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import planted
import pytest
import torch
from torch import nn

from bench.errors import UsageError
from bench.machine.memory_limit import Limit
from bench.options import Options
from bench.training import confirm
from bench.training.build import model_for, optimizer_for, place
from bench.training.loop import Training
from bench.trial import Trial

CPU = torch.device("cpu")
NO_LIMIT = Limit(None, CPU, None)


def trained_with(trial: Trial, model: nn.Module) -> Training:
    return Training(model, model, optimizer_for(trial, model))


def check_setup(trial: Trial, training: Training, precision: str = "no", **more: Any) -> None:
    group: Any = SimpleNamespace(accelerator=SimpleNamespace(mixed_precision=precision), device=CPU)
    confirm.setup(trial, group, training, more.get("limit", NO_LIMIT))


def test_a_setup_as_asked_for_is_confirmed() -> None:
    trial = Trial(precision="bf16")
    model = place(planted.smooth(trial, 10), trial, CPU)
    check_setup(trial, trained_with(trial, model), "bf16")


@pytest.mark.parametrize(
    ("settings", "found", "said"),
    [
        ({"precision": "bf16"}, {}, "--precision is bf16, but Accelerate has no"),
        (
            {"memory_format": "contiguous"},
            {},
            r"--memory-format is contiguous, but 0.weight has strides \(27, 1, 9, 3\)",
        ),
        ({"memory_limit_bytes": 10**9}, {}, r"--memory-limit-bytes is 1000000000, but -?\d+ bytes are in force"),
    ],
    ids=str,
)
def test_a_setup_that_differs_is_refused(settings: dict[str, Any], found: dict[str, Any], said: str) -> None:
    trial = Trial(**settings)
    model = place(planted.smooth(trial, 10), Trial(), CPU)
    limit = Limit(trial.memory_limit_bytes, CPU, 5 if trial.memory_limit_bytes else None)
    with pytest.raises(UsageError, match=f"^{said}"):
        check_setup(trial, trained_with(trial, model), limit=limit, **found)


def test_the_optimizer_updates_what_trains() -> None:
    trial = Trial()
    model = place(planted.smooth(trial, 10), trial, CPU)
    training = trained_with(trial, model)
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    with pytest.raises(
        UsageError, match=r"^--trainable is \('all',\), but 3 parameters train and the optimizer updates 4"
    ):
        check_setup(trial, training)


# What the first step shows


def leaking(trial: Trial, classes: int) -> nn.Module:
    """A network whose frozen bias gets a gradient all the same."""
    model = planted.smooth(trial, classes)
    model[0].bias.requires_grad_(False)  # type: ignore[index]

    def leak(module: nn.Module, *_: Any) -> None:
        bias = module[0].bias  # type: ignore[index]
        bias.grad = torch.ones_like(bias)

    model.register_forward_hook(leak)
    return model


def awake(trial: Trial, classes: int) -> nn.Module:
    """A network whose frozen BatchNorm trains on, though the trial says that it does not."""
    model = planted.smooth(trial, classes, batch_norm=True)
    model[1].requires_grad_(False)  # type: ignore[index]
    return model


@pytest.mark.parametrize(
    ("build", "settings", "said"),
    [
        (leaking, {}, "--trainable is ('all',), but 0.bias, which is frozen, has a gradient"),
        (awake, {"batch_norm": "eval"}, "--batch-norm is eval, but 1, which is frozen, is not in evaluation mode"),
    ],
    ids=["gradient", "BatchNorm"],
)
@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_frozen_stays_so(
    build: Any, settings: dict[str, Any], said: str, processes: int, tmp_path: Path
) -> None:
    trial = planted.settings(micro_batch=4, processes=processes, **settings)
    ran = planted.run(tmp_path, trial, build, planted.noise)
    assert said in planted.refused(ran)
    assert ran.rows("trials") == ran.rows("steps") == []


def test_mixed_precision_that_got_lost_is_found(tmp_path: Path) -> None:
    trial = planted.settings(micro_batch=4, precision="bf16")
    codes = planted.group(1, planted.without_autocast, trial, tmp_path, planted.smooth, planted.noise, said=tmp_path)
    ran = planted.Ran(trial, tmp_path, codes)
    assert planted.refused(ran).startswith("error: --precision is bf16, but 0 computed in torch.float32 on cpu")
    assert ran.rows("trials") == []


def without_compiler(trial: Trial, folder: Path, build: Any, load: Any) -> None:
    """A trial in a process that found these variables when it imported torch, as a command does."""
    from torch._dynamo import config
    from torch._inductor import config as inductor

    config.disable = "TORCH_COMPILE_DISABLE" in os.environ
    config.suppress_errors = "TORCHDYNAMO_SUPPRESS_ERRORS" in os.environ
    inductor.cpp.cxx = (None, "/no/compiler")
    planted._work(trial, Options(out=folder), build, load)


@pytest.mark.parametrize("name", confirm.WITHOUT_COMPILER)
def test_a_compiler_that_is_switched_off_or_missing_is_found(name: str, tmp_path: Path) -> None:
    trial = planted.settings(micro_batch=4, compile="default")
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), name: "1"}
    words = (trial, tmp_path, planted.smooth, planted.noise)
    ran = planted.Ran(trial, tmp_path, planted.group(1, without_compiler, *words, said=tmp_path, **variables))
    said = f"error: --compile is default, but torch ran the model without compiling it ({name} is 1); unset {name}"
    assert ran.codes == [2]
    assert said in ran.said().splitlines()  # torch shows the errors that it suppresses
    assert ran.rows("trials") == []


def images(layout: str, classes: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.zeros(2, 3, 4, 4).to(memory_format=confirm.LAYOUTS[layout])
    return made, torch.zeros(2, dtype=torch.long)


def test_the_layout_of_the_images_is_looked_at_and_none_is_lost() -> None:
    trial = Trial(memory_format="channels_last")
    watch = functools.partial(confirm.FirstStep, trial, trained_with(trial, planted.smooth(trial, 10)), CPU)
    batches = [images("channels_last"), images("channels_last")]
    assert [id(batch) for batch in watch().watched(iter(batches))] == [id(batch) for batch in batches]
    assert list(watch().watched(iter([]))) == []
    watched = watch().watched(images("channels_last") for _ in range(2))
    first = weakref.ref(next(watched)[0])
    next(watched)
    assert first() is None
    with pytest.raises(
        UsageError, match=r"^--memory-format is channels_last, but the images have strides \(48, 16, 4, 1\)"
    ):
        list(watch().watched(iter([images("contiguous")])))


def test_later_steps_are_not_watched() -> None:
    trial = Trial()
    model = planted.smooth(trial, 10)
    step = confirm.FirstStep(trial, trained_with(trial, model), CPU)
    model(torch.zeros(2, 3, 4, 4))
    assert step.found == {"0": torch.float32, "4": torch.float32}
    step.check()
    assert [len(module._forward_hooks) for module in model.modules()] == [0] * 6


def stepped(trial: Trial, model: nn.Module) -> confirm.FirstStep:
    """The first step's watch, after a step of this model."""
    step = confirm.FirstStep(trial, trained_with(trial, model), CPU)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    return step


def test_one_block_among_others_that_is_not_recomputed_is_named() -> None:
    trial = Trial(model="resnet8", checkpoint_activations="block")
    model = model_for(trial, 10)
    del model.get_submodule("layer3.0").forward  # its class's own remains
    said = "^--checkpoint-activations is block, but layer3.0 was not recomputed in the backward pass"
    with pytest.raises(UsageError, match=said):
        stepped(trial, model).check()


@pytest.mark.parametrize("built", ["none", "block", "stage"])
@pytest.mark.parametrize("asked", ["none", "block", "stage"])
def test_that_blocks_are_recomputed_shows_in_the_first_step(asked: Any, built: Any) -> None:
    model = model_for(Trial(model="resnet8", trainable=("layer2", "layer3"), checkpoint_activations=built), 10)
    step = stepped(Trial(model="resnet8", checkpoint_activations=asked), model)
    if (asked == "none") is (built == "none"):
        step.check()
        return
    found = "not recomputed" if built == "none" else "recomputed"
    said = f"^--checkpoint-activations is {asked}, but layer2.0 was {found} in the backward pass"
    with pytest.raises(UsageError, match=said):
        step.check()


def test_checkpointing_a_network_whose_blocks_keep_nothing_is_found() -> None:
    trial = Trial(checkpoint_activations="block")
    model = model_for(Trial(model="resnet8", trainable=("head",)), 10)
    with pytest.raises(UsageError, match=r"^--checkpoint-activations is block, but no block has a backward pass"):
        stepped(trial, model).check()
