"""From a process group to what it trains with (`training`), and the columns that describe its machine (`describe`)."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bench.errors import UsageError
from bench.instruments.collectives import in_group
from bench.machine import compiler, cuda, environment, nvml
from bench.machine.backends import allowed
from bench.training.build import Build, keeps_casts, optimizer_for, place, trained_part, updated_model
from bench.training.group import Group
from bench.training.loop import Training, backward_with, kept_casts
from bench.trial import Trial


def training(trial: Trial, group: Group, build: Build, classes: int) -> Training:
    """The model on its device, wrapped for the group, and its optimizer."""
    accelerator = group.accelerator
    with accelerator.local_main_process_first():  # only one process of each machine downloads weights
        module = build(trial, classes)
    module = place(module, trial, group.device)
    compiler.check_mode(trial, group.device)
    compiler.compile_model(module, trial)
    # The module is on its device already. Accelerate would look for sharded tensors while it moves it, and fail on a
    # torch that is built without distributed.
    part = trained_part(trial, module)
    model = accelerator.prepare_model(part, device_placement=False)
    if trial.processes > 1 and not isinstance(model, nn.parallel.DistributedDataParallel):
        raise UsageError(f"{trial.processes} processes formed no DDP group on {group.device}; see accelerate env")
    updated = updated_model(trial, module, build, classes)
    # The parameters of another model get no gradients, and a scaler without any gradient raises.
    scaler = accelerator.scaler if trial.optimizer_holds == "this_model" else None
    return Training(
        model=model,
        module=module,
        part=part,
        optimizer=optimizer_for(trial, updated.to(group.device)),
        processes=trial.processes,
        backward=backward_with(scaler),
        no_sync=lambda: accelerator.no_sync(model),
        kept_casts=functools.partial(kept_casts, group.device) if keeps_casts(trial) else contextlib.nullcontext,
        scaler=scaler,
        keeps_gradients=compiler.keeps_gradients(trial, group.device),
    )


def places(trial: Trial, group: Group) -> list[dict[str, Any]]:
    """Each rank's columns of ranks.csv about its machine and device, rank 0 first."""
    on_cuda = group.device.type == "cuda"
    uuid = cuda.uuid(group.device) if on_cuda else None
    own = {
        "host": socket.gethostname(),
        "cpu_model": environment.cpu_model(),
        "device_name": torch.cuda.get_device_name(group.device) if on_cuda else "cpu",
        "device_index": nvml.index(uuid) if uuid is not None else None,
        "device_uuid": uuid,
        "variables": environment.of_speed(),
        "group_variables": environment.of_group_speed(trial.machines) if trial.processes > 1 else None,
    }
    return [json.loads(text) for text in group.gather_bytes(json.dumps(own).encode())]


def devices(trial: Trial, ranks: Sequence[Mapping[str, Any]]) -> str:
    """Each machine of the group: host, processes on it, device; such as "a: 2 x NVIDIA H100; b: 2 x NVIDIA H100"."""
    per_machine = trial.processes // trial.machines

    def device(rank: Mapping[str, Any]) -> str:
        return rank["device_name"] if rank["device_uuid"] is not None else f"CPU {rank['cpu_model']}"

    return "; ".join(f"{rank['host']}: {per_machine} x {device(rank)}" for rank in ranks[::per_machine])


def joined(values: Iterable[str | None]) -> str | None:
    """What the ranks have: one text where all have the same, else each."""
    return " | ".join(dict.fromkeys(value for value in values if value is not None)) or None


def limits(group: Group) -> dict[str, float | None]:
    """Power and clock limits of the group's GPUs: the lowest of all ranks; None if one of them does not say."""
    if group.device.type != "cuda":
        return dict.fromkeys(nvml.LIMITS)
    own = nvml.limits(cuda.uuid(group.device))
    # nan stands for None on its way through the collective.
    ranks = group.gather([math.nan if value is None else value for value in own.values()])
    by_limit = zip(own, zip(*ranks, strict=True), strict=True)
    return {name: None if any(map(math.isnan, values)) else min(values) for name, values in by_limit}


def describe(
    trial: Trial, group: Group, ranks: Sequence[Mapping[str, Any]], mallopt_accepted: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the columns of trials.csv that describe the machine, its entry in environment.json). `ranks`: their places."""
    on_cuda = group.device.type == "cuda"
    columns = {
        "device_name": ranks[group.rank]["device_name"],
        "device_count": trial.processes if on_cuda else 0,
        "devices": devices(trial, ranks),
        **limits(group),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **{name: joined(rank[name] for rank in ranks) for name in ("variables", "group_variables")},
        "backend": torch.distributed.get_backend() if in_group() else None,
        "cuda": torch.version.cuda if on_cuda else None,
    }
    # The entry has all variables, by their names.
    entry = environment.describe(
        {
            **{name: value for name, value in columns.items() if name not in ("variables", "group_variables")},
            "precision": trial.precision,
            "allowed": allowed()._asdict() if on_cuda else None,
            "mallopt_accepted": mallopt_accepted,
            "malloc_returns_freed": mallopt_accepted and trial.memory_limit_bytes is not None,
        }
    )
    return columns, entry
