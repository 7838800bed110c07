"""What it costs to start a trial and to end it, warm against cold: `python -m tests.perf.startup --rounds 5`.

The same small trial is run both ways in turn (cold warm, warm cold, ...), on one process and on two. A trial's cost is
the time of its launch in which it does none of its own work: from the request until the group has formed, and from its
row until the launch is settled. The warm process's own start, once in a sweep, stands apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.options import Options
from bench.trial import Trial
from launch.group.cold_starter import ColdStarter
from launch.group.run_context import RunContext, run_context
from launch.run_options import RunOptions
from launch.sweep.runner import run_sweep

from .speed import Bystanders, machine_line

TRIAL = Trial(
    experiment="resnet20_accumulation", arm="16x1", model="resnet8", data="digits", limit_train=64, limit_eval=50
)


def cost_s(trial: Trial, context: RunContext) -> float:
    """Run the trial: seconds of its launch that were none of its work."""
    began = time.time()
    ((_, code, row),) = run_sweep([("", trial)], context).ended
    if code:
        raise RuntimeError(f"the trial ended as {row['status']}: {row['error']}")
    recorded = datetime.datetime.fromisoformat(row["started_at"]).timestamp() + float(row["duration_s"])
    return float(row["startup_s"]) + time.time() - max(recorded, began)


def race(processes: int, rounds: int, context: RunContext) -> dict[str, list[float]]:
    """Costs of each way, in turn."""
    trial = dataclasses.replace(TRIAL, processes=processes, micro_batch=16)
    ways = {"cold": dataclasses.replace(context, starter=ColdStarter()), "warm": context}
    costs: dict[str, list[float]] = {"cold": [], "warm": []}
    for number in range(rounds):
        for way in ("cold", "warm") if number % 2 == 0 else ("warm", "cold"):
            costs[way].append(cost_s(trial, ways[way]))
    return costs


def table(found: dict[int, dict[str, list[float]]], first_s: float, others: float) -> Table:
    """Seconds and ratios."""
    caption = f"{machine_line()}\nOther processes took {others:.0%} of the CPUs meanwhile. The first warm trial of a "
    caption += f"sweep took {first_s:.1f} s, most of it imports of the process that the others are forked off."
    result = Table(title="Cost of a trial beyond its own work", caption=caption, caption_justify="left")
    for heading in ("processes", "cold s", "warm s", "cold / warm"):
        result.add_column(heading, justify="right")
    for processes, costs in found.items():
        ratios = [cold / warm for cold, warm in zip(costs["cold"], costs["warm"], strict=True)]
        result.add_row(str(processes), *(spread(values) for values in (costs["cold"], costs["warm"], ratios)))
    return result


def spread(values: Sequence[float]) -> str:
    """Median (lowest .. highest)."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} .. {max(values):.2f})"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.perf.startup", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="trials of each kind (default: 5)")
    rounds: Any = parser.parse_args().rounds
    bystanders = Bystanders()
    with tempfile.TemporaryDirectory() as folder:
        options = Options(out=Path(folder) / "runs", checkpoint=False)
        with run_context(options, 0, RunOptions()) as context:
            first_s = cost_s(TRIAL, context)
            found = {processes: race(processes, rounds, context) for processes in (1, 2)}
    Console(width=120).print(table(found, first_s, bystanders.share()))


if __name__ == "__main__":
    main()
