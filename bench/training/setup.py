"""From a process group to what it trains with, and what there is to say of the machine under it."""

from __future__ import annotations

import contextlib
import functools
import math
import socket
from typing import Any

import torch
from torch import nn

from bench.errors import UsageError
from bench.instruments.collectives import in_group
from bench.machine import compiler, environment, nvml
from bench.machine.backends import allowed
from bench.training.build import Build, optimizer_for, place, updated_model
from bench.training.group import Group
from bench.training.loop import Training, backward_with, kept_casts
from bench.trial import Trial


def training(trial: Trial, group: Group, build: Build, classes: int) -> Training:
    """The model on its device, wrapped for the group, and its optimizer."""
    module = place(group.first_fetches(lambda: build(trial, classes)), trial, group.device)
    compiler.check_mode(trial, group.device)
    compiler.compile_model(module, trial)
    accelerator = group.accelerator
    # It is on its device; Accelerate would look for sharded tensors, which a torch without distributed does not know.
    model = accelerator.prepare_model(module, device_placement=False)
    if trial.processes > 1 and not isinstance(model, nn.parallel.DistributedDataParallel):
        raise UsageError(f"{trial.processes} processes formed no DDP group on {group.device}; see accelerate env")
    held = updated_model(trial, module, build, classes)
    # Another model's parameters get no gradients, of which a scaler wants at least one.
    scaler = accelerator.scaler if trial.optimizer_holds == "this_model" else None
    cast = trial.precision != "no" and trial.compile == "none"  # compiled code does its casts by itself
    return Training(
        model=model,
        module=module,
        optimizer=optimizer_for(trial, held.to(group.device)),
        processes=trial.processes,
        backward=backward_with(scaler),
        no_sync=lambda: accelerator.no_sync(model),
        kept_casts=functools.partial(kept_casts, group.device) if cast else contextlib.nullcontext,
        scaler=scaler,
        keeps_gradients=compiler.keeps_gradients(trial, group.device),
    )


def devices(trial: Trial, group: Group, name: str | None) -> str:
    """What each machine of the group brings: its host's name, how many processes it runs, and on what."""
    names = group.gather_text(f"{socket.gethostname()}\t{name or f'CPU {environment.cpu_model()}'}")
    each = trial.processes // trial.machines
    machines = [text.split("\t") for text in names[::each]]
    return "; ".join(f"{host}: {each} x {what}" for host, what in machines)


def limits(group: Group) -> dict[str, float | None]:
    """What the group's GPUs are set to: of each limit the lowest of all ranks; None where one does not say."""
    if group.device.type != "cuda":
        return dict.fromkeys(nvml.LIMITS)
    from bench.machine import cuda

    own = nvml.limits(cuda.uuid(group.device))
    ranks = group.gather([math.nan if value is None else value for value in own.values()])
    each = zip(own, zip(*ranks, strict=True), strict=True)
    return {name: None if any(map(math.isnan, values)) else min(values) for name, values in each}


def describe(trial: Trial, group: Group, mallopt_accepted: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """(columns of trials.csv that say what machine this is, its entry in environment.json)."""
    cuda = group.device.type == "cuda"
    if cuda:
        from bench.machine import cuda as cuda_device
    facts = {
        "device_name": cuda_device.name(group.device) if cuda else "cpu",
        "device_count": trial.processes if cuda else 0,
        "devices": devices(trial, group, cuda_device.name(group.device) if cuda else None),
        **limits(group),
        "threads": torch.get_num_threads(),
        "backend": torch.distributed.get_backend() if in_group() else None,
        "cuda": torch.version.cuda if cuda else None,
    }
    described = environment.describe(
        {
            **facts,
            "precision": trial.precision,
            "allowed": allowed()._asdict() if cuda else None,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "mallopt_accepted": mallopt_accepted,
            "malloc_returns_freed": mallopt_accepted and trial.memory_limit_bytes is not None,
        }
    )
    return facts, described
