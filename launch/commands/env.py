"""Say what can be measured on this machine, and why the rest cannot."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.arguments import Parser
from bench.errors import UsageError
from bench.machine import cgroups, environment, gpus, nvml, repository, tegra
from bench.machine.gpus import built_for
from bench.probes import probe_modules
from bench.terminal import BLANK, WINDOW, Grid, paragraph, print_grid

YES = "yes"

GROUP = "Which machine"


def arguments(parser: Parser) -> None:
    """There are none."""


def run(options: argparse.Namespace) -> None:
    """Print the machine, then each column and whether it can be measured here."""
    console = Console(highlight=False)
    for line in machine():
        paragraph(console, line)
    rows = readable()
    reasons = list(dict.fromkeys(answer for *_, answer in rows if answer != YES))
    numbers = {reason: f"no [{number}]" for number, reason in enumerate(reasons, start=1)}
    lines = [[probe, column, unit, numbers.get(answer, answer)] for probe, column, unit, answer in rows]
    heads = ("probe", "column", "unit", "can be read here")
    print_grid(console, Grid(heads, lines, telling=2, important=heads[::-1], left=heads), more=WINDOW)
    for number, reason in enumerate(reasons, start=1):
        paragraph(console, f"[{number}]{BLANK}{reason}", "  ")


def machine(root: Path = Path("/")) -> list[str]:
    """Lines about the machine: CPU, memory, GPUs, driver, Jetson board; and the commit."""
    no_gpu = gpus.why_none()
    lines = [
        f"CPU: {cpus(root)} of {environment.cpu_model() or 'unknown'}",
        f"memory: {memory(root)}",
        f"GPU: {nvml.device_count() or 'none that NVML sees'}, driver {nvml.driver_version() or 'unknown'}",
        f"trials run on: {f'the CPU ({no_gpu})' if no_gpu else 'CUDA'}",
    ]
    if rocm := built_for().get("hip"):
        lines.append(f"AMD GPUs: {len(gpus.amd()) or 'none'}, for ROCm {rocm}, which torch calls CUDA")
    if environment.is_jetson():
        lines.append(f"Jetson: {tegra.board() or 'unknown'}, power mode {tegra.power_mode() or 'unknown'}")
    return [*lines, f"commit: {commit()}"]


def cpus(root: Path) -> str:
    """How many CPUs a trial's threads may take, and by which limit."""
    count, quota = cgroups.cpu_count(root), cgroups.cpu_quota(root)
    if quota is None:
        return f"{count} (no control group has a quota)"
    return f"{count} (the control group's quota is {quota.cpus:g} by {quota.source})"


def memory(root: Path) -> str:
    """How much is free, and which limit says so."""
    free, limit = cgroups.free_memory(root), cgroups.smallest_limit(root)
    if free is None:
        return "unknown: the kernel has no MemAvailable"
    limited = f"{limit.limit_bytes / 2**30:.2f} GiB by {limit.source}" if limit else "none"
    return f"{free.free_bytes / 2**30:.2f} GiB free now ({free.explain()}); limit of the control group: {limited}"


def commit() -> str:
    """The checkout's commit as rows have it, or why they have none."""
    try:
        if environment.built() is None:
            repository.state(environment.CHECKOUT)
    except UsageError as error:
        return f"unknown: {error}"
    return environment.machine()["commit"] or "unknown: the wheel was built of no commit"


def readable() -> list[tuple[str, str, str, str]]:
    """(probe, column, unit, "yes" or why not) for each column of each probe."""
    rows = []
    for module in probe_modules():
        reasons: dict[str, str] = module.unreadable() if hasattr(module, "unreadable") else {}
        probe = Path(module.__file__).stem
        rows += [(probe, column.name, column.unit, reasons.get(column.name, YES)) for column in columns_of(module)]
    return rows


def columns_of(module: Any) -> list[Any]:
    """A probe's columns, each once, whichever files have them."""
    columns = (column for file in ("TRIALS", "EPOCHS", "STEPS") for column in getattr(module, file, ()))
    return list({column.name: column for column in columns}.values())
