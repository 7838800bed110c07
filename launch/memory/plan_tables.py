"""Plans as tables on the terminal: predicted, and predicted beside measured."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich.console import Console

from bench import experiments
from bench.terminal import WINDOW, Grid, paragraph, print_grid
from launch.memory.devices import Budget
from launch.memory.plan import Plan, gib, rival_of


def show_plans(name: str, effective_batch: int, plans: Sequence[Plan], budget: Budget) -> None:
    """Print a table for each arm, the plan to choose, and how the budget came about."""
    console = Console()
    for arms, group in itertools.groupby(plans, lambda plan: plan.arms):
        of_arms = list(group)
        paragraph(console, f"\n{name}, {arms_of(name, arms)}: effective batch {effective_batch}")
        print_grid(console, grid_of(of_arms, budget), more=WINDOW)
        best = next((plan for plan in of_arms if plan.chosen), None)
        least = min(of_arms, key=lambda plan: plan.footprint.limited_bytes)
        choice = f"none fits: {least.described()} needs {gib(least.footprint.limited_bytes)} GiB"
        if best:
            choice = f"choose {best.described()}: {best.why}"
        if best and (rival := rival_of(best, of_arms)):
            choice += (
                f"\nor {rival.described()}: {rival.passes()} instead of {best.trial.accumulate}, in which the blocks' "
                "forward pass runs twice; --measure says which is faster"
            )
        paragraph(console, choice)
    paragraph(console, f"\nper process: {budget.explain()}")


def grid_of(plans: Sequence[Plan], budget: Budget) -> Grid:
    """One row for each plan."""
    reserved = ["reserved\nGiB"] if budget.backend == "cuda" else []
    recomputed = ["recomputed"] if any(plan.recomputes() for plan in plans) else []
    lines = []
    for plan in plans:
        part, size = plan.dominant()
        line = [
            plan.label(),
            plan.trial.precision,
            *([plan.recomputed()] if recomputed else []),
            gib(plan.footprint.allocated_bytes),
            *([gib(plan.footprint.reserved_bytes)] if reserved else []),
            f"{plan.footprint.limited_bytes / plan.limit_bytes:.0%}",
            f"{part} {size / plan.footprint.allocated_bytes:.0%}",
            f"{plan.fits}, choose" if plan.chosen else plan.fits,
        ]
        lines.append(line)
    return Grid(
        heads=("plan", "precision", *recomputed, "allocated\nGiB", *reserved, "of limit", "mostly", "fits"),
        lines=lines,
        telling=2 + len(recomputed),
        important=("fits", "of limit", "reserved GiB", "allocated GiB"),
        left=("precision", "recomputed", "mostly", "fits"),
        bold=[number for number, plan in enumerate(plans) if plan.chosen],
    )


def arms_of(name: str, arms: Sequence[str]) -> str:
    """The arms that share these plans."""
    return "all" if len(arms) > 1 and set(arms) == set(experiments.load(name).arms) else ", ".join(arms)


def show_measured(plans: Sequence[Plan], gpus: int) -> None:
    """Print predicted beside measured memory, and the throughput, which accumulation lowers."""
    recomputed = ["recomputed"] if any(plan.recomputes() for plan in plans) else []
    kinds = ("allocated", "reserved") if gpus else ("of the process",)
    lines = []
    for plan in plans:
        pairs = zip(predicted_bytes(plan, gpus), measured_bytes(plan, gpus), strict=True)
        rate = plan.measured.get("images_per_s")
        line = [
            plan.trial.arm,
            plan.label(),
            plan.trial.precision,
            *([plan.recomputed()] if recomputed else []),
            plan.measured.get("status", ""),
            *(f"{gib(predicted)}, {gib(measured) or 'none'}" for predicted, measured in pairs),
            f"{float(rate):.0f}" if rate else "",
        ]
        lines.append(line)
    words = ("plan", "precision", *recomputed, "status")
    heads = ("arm", *words, *(f"{kind} GiB\npredicted, measured" for kind in kinds), "images/s")
    print_grid(Console(), Grid(heads, lines, 3 + len(recomputed), left=words), more=WINDOW)


def predicted_bytes(plan: Plan, gpus: int) -> list[int | None]:
    """Allocated and reserved on GPUs; on a CPU, the memory of the process."""
    return [plan.footprint.allocated_bytes, plan.footprint.reserved_bytes] if gpus else [plan.footprint.limited_bytes]


def measured_bytes(plan: Plan, gpus: int) -> list[int | None]:
    """The same as measured; on a CPU, the growth of the process's resident memory."""
    row = {name: int(value) for name, value in plan.measured.items() if name.endswith("_bytes") and value}
    if gpus:
        return [row.get("peak_allocated_bytes"), row.get("peak_reserved_bytes")]
    peak, base = row.get("peak_rss_bytes"), row.get("base_rss_bytes")
    return [None if peak is None or base is None else peak - base]
