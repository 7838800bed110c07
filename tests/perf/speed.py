"""How fast the suite's loop is, as ratios to ordinary loops at the same work, measured side by side.

    python -m tests.perf.speed [--case resnet20|frameworks|resnet152|probes|hardware] [--rounds 5]

The contenders take turns as the sides of a gate do, a block of windows at a time, in an order drawn by chance: a slow
second of the machine hits them all. A ratio is the median over the turns, each compared with its neighbours only. In
each round every contender is started anew, since launches of equal code differ too: rounds are the observations that
the interval is made of (Student's t of the rounds' log ratios). What a loop does once an epoch is not in the median. No
absolute time is printed, because none would mean anything elsewhere.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bench import experiments
from bench.machine import environment
from bench.trial import Trial
from reports.verdicts import significance

from .contenders import Contender, in_turns
from .probe_cost import median_interval, pairs, turns

MOST = 1.01  # a step with probes over one without
DISTURBED = 0.05  # of the CPUs, by other processes
WIDTH = 140  # in a pipe
FIRST_TURNS = 8  # warm up, and find how long a turn is
EPOCH_WINDOWS = 24


@dataclass(frozen=True)
class Pair:
    """Images per second of one contender over another's, and the least it is meant to be."""

    faster: str
    slower: str
    target: float | None = None


@dataclass(frozen=True)
class Race:
    """Contenders at equal work, so many turns each in a round, and how many of those are not measured, the first."""

    contenders: Sequence[Contender]
    pairs: Sequence[Pair]
    turns: int
    warmup: int


@dataclass(frozen=True)
class Row:
    """A line of the table. `low` and `high`: the ends of a 95% interval, or as `spread` says."""

    case: str
    what: str
    ratio: float
    low: float
    high: float
    target: str = ""
    met: bool | None = None
    spread: str = "95% interval"


def small(micro_batch: int = 128, precision: str = "bf16", memory_format: str = "channels_last") -> Trial:
    """ResNet-20 on images of 32x32 at an effective batch of 128."""
    base = experiments.load("resnet20_accumulation").trial("resnet20_accumulation", "128x1")
    changes: Any = {"precision": precision, "memory_format": memory_format}
    return dataclasses.replace(base, micro_batch=micro_batch, accumulate=128 // micro_batch, **changes)


def large(arm: str, precision: str, memory_format: str) -> Trial:
    """ResNet-152 frozen but for its head, at 224 and the source's batch of 64; random weights, which change no time."""
    base = experiments.load("resnet152_frozen").trial("resnet152_frozen", arm)
    changes: Any = {"precision": precision, "memory_format": memory_format}
    return dataclasses.replace(base, weights="none", **changes)


def resnet20() -> Race:
    """Against the loop of the sources, with and without accumulation."""
    return Race(
        [
            Contender("plain 128x1 fp32", "plain", small(128, "no", "contiguous")),
            Contender("plain 16x8 fp32", "plain", small(16, "no", "contiguous")),
            Contender("ours 128x1 fp32", "ours", small(128, "no")),
            Contender("ours 128x1 bf16", "ours", small(128, "bf16")),
            Contender("ours 16x8 fp32", "ours", small(16, "no")),
            Contender("ours 16x8 bf16", "ours", small(16, "bf16")),
        ],
        [
            Pair("ours 128x1 fp32", "plain 128x1 fp32", 1.3),
            Pair("ours 128x1 bf16", "plain 128x1 fp32", 2.5),
            Pair("ours 16x8 bf16", "plain 16x8 fp32", 1.8),
            Pair("ours 16x8 bf16", "plain 128x1 fp32", 1.8),
            Pair("ours 16x8 fp32", "plain 16x8 fp32"),
            Pair("ours 16x8 fp32", "plain 128x1 fp32"),
        ],
        turns=14,
        warmup=2,
    )


def frameworks() -> Race:
    """Against what users of Lightning and Accelerate write, all in bf16."""
    names = ["accelerate", *(["lightning"] if find_spec("lightning") else [])]
    theirs = [Contender(f"{name} 128x1 bf16", name, small(128, "bf16", "contiguous")) for name in names]
    return Race(
        [Contender("ours 128x1 bf16", "ours", small(128, "bf16")), *theirs],
        [Pair("ours 128x1 bf16", contender.name, 1.35) for contender in theirs],
        turns=14,
        warmup=2,
    )


def resnet152() -> Race:
    """Against the loop of the source, whose frozen backbone is in training mode."""
    return Race(
        [
            Contender("plain fp32", "plain", large("as_published", "no", "contiguous")),
            Contender("ours bn_eval fp32", "ours", large("bn_eval", "no", "channels_last")),
            Contender("ours bn_eval bf16", "ours", large("bn_eval", "bf16", "channels_last")),
        ],
        [Pair("ours bn_eval bf16", "plain fp32", 4.0), Pair("ours bn_eval fp32", "plain fp32")],
        turns=6,
        warmup=2,
    )


def run_race(case: str, race: Race, rounds: int, tell: Callable[[str], None]) -> list[Row]:
    """One row for each pair, from two rounds or more."""
    images = EPOCH_WINDOWS * race.contenders[0].trial.effective_batch()
    found = []
    for number in range(1, rounds + 1):
        tell(f"{case}: round {number} of {rounds}, {len(race.contenders)} contenders in turns")
        found.append(in_turns(race.contenders, images, race.turns))
    return [row_of(case, pair, found, race.warmup) for pair in race.pairs]


def row_of(case: str, pair: Pair, rounds: Sequence[Mapping[str, Sequence[float]]], warmup: int) -> Row:
    """A pair's row. `rounds`: for each, by contender, the seconds of a window in each turn."""
    logs = []
    for seconds in rounds:
        turns = zip(seconds[pair.slower][warmup:], seconds[pair.faster][warmup:], strict=True)
        logs.append(statistics.median(math.log(slow / fast) for slow, fast in turns))
    found = significance.of_pairs(logs)
    ratio, low, high = (1 + each for each in (found.size(), *found.limits()))
    target = f">= {pair.target:g}" if pair.target else ""
    met = ratio >= pair.target if pair.target else None
    return Row(case, f"{pair.faster} / {pair.slower}", ratio, low, high, target, met)


def run_probes(rounds: int, tell: Callable[[str], None]) -> list[Row]:
    """Step time with the probes over without them, at the smallest step there is, in 20 turns a round."""
    rows = []
    for processes, said in ((1, ""), (2, ", two processes")):
        trial = dataclasses.replace(small(16), accumulate=1, processes=processes)
        wanted = FIRST_TURNS + 20 * rounds
        tell(f"probes: {wanted} turns, on and off, of about a second{said}")
        chosen = pairs(turns(trial, wanted)[FIRST_TURNS:])
        median, low, high = median_interval([on.window_s / off.window_s for on, off in chosen])
        inside = [on.window_s / (on.window_s - on.inside_s) for on, _ in chosen]
        least, mean, most = min(inside), statistics.median(inside), max(inside)
        name, target = f"probes on / off, 16x1 bf16{said}, step time", f"<= {MOST}"
        rows.append(Row("probes", name, median, low, high, target, median <= MOST))
        name = f"the same{said}, by the time inside the Meter"
        rows.append(Row("probes", name, mean, least, most, target, mean <= MOST, "turns"))
    return rows


def run_hardware(rounds: int, tell: Callable[[str], None]) -> list[Row]:
    """What bf16 itself gives on this machine, without any loop: the ceiling of what is above."""
    tell("hardware: matrix product and convolutions")
    with torch.no_grad():
        rows = [_bf16_gain("matrix product, 2048", torch.mm, [(2048, 2048), (2048, 2048)], rounds)]
        for name, channels, size, batch in (("ResNet-20", 16, 32, 128), ("ResNet-152", 256, 14, 16)):
            shapes = [(batch, channels, size, size), (channels, channels, 3, 3)]
            what = f"3x3 convolution of {name}, {channels} channels"
            rows.append(_bf16_gain(what, lambda x, w: F.conv2d(x, w, padding=1), shapes, rounds))
    return rows


def _bf16_gain(what: str, call: Callable[..., Tensor], shapes: Sequence[tuple[int, ...]], rounds: int) -> Row:
    """Speed in bf16 over speed in fp32, channels_last."""
    operands = [_channels_last(torch.randn(shape)) for shape in shapes]
    halves = [_channels_last(operand.bfloat16()) for operand in operands]
    ratios = [_best_s(call, operands) / _best_s(call, halves) for _ in range(rounds)]
    median, least, most = statistics.median(ratios), min(ratios), max(ratios)
    return Row("hardware", f"{what}, bf16 / fp32", median, least, most, spread="rounds")


def _channels_last(values: Tensor) -> Tensor:
    return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values


def _best_s(call: Callable[..., Tensor], operands: Sequence[Tensor], repeats: int = 30) -> float:
    best = math.inf
    for _ in range(repeats):
        began = time.perf_counter()
        call(*operands)
        best = min(best, time.perf_counter() - began)
    return best


class Bystanders:
    """What processes other than this one and those it started took of the CPUs, since it was made."""

    def __init__(self) -> None:
        self.began, self.before_s = time.monotonic(), self._taken_s()

    def share(self) -> float:
        """Of all CPUs, once the processes started since have ended; what a hypervisor took counts."""
        elapsed_s = (time.monotonic() - self.began) * (os.cpu_count() or 1)
        return max(0.0, self._taken_s() - self.before_s) / elapsed_s

    def _taken_s(self) -> float:
        everyone, own = psutil.cpu_times(), os.times()
        idle = everyone.idle + getattr(everyone, "iowait", 0.0)
        return sum(everyone[:8]) - idle - sum(own[:4])


def table(rows: Sequence[Row], others: float) -> Table:
    """The rows with what they were measured on, and how undisturbed."""
    weak = "; the ratios are weak, repeat them on a quiet machine" if others > DISTURBED else ""
    caption = f"{machine_line()}\nOther processes took {others:.0%} of the CPUs meanwhile{weak}."
    result = Table(title="Speed, as ratios measured side by side", caption=caption, caption_justify="left")
    for heading in ("case", "what", "ratio", "from .. to", "of", "target", "met"):
        result.add_column(heading, justify="right" if heading == "ratio" else "left")
    for row in rows:
        digits = 4 if row.case == "probes" else 2
        span = f"{row.low:.{digits}f} .. {row.high:.{digits}f}"
        met = {None: "", True: "yes", False: "no"}[row.met]
        result.add_row(row.case, row.what, f"{row.ratio:.{digits}f}", span, row.spread, row.target, met)
    return result


def machine_line() -> str:
    """The machine, its units for bf16 and the versions."""
    known = environment.machine()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    units = [unit for unit in ("avx512_bf16", "amx_bf16") if f" {unit}" in flags] or ["no bf16 unit known"]
    versions = ", ".join(f"{name} {known[name]}" for name in ("torch", "torchvision", "accelerate"))
    return f"{known['cpu_model']} ({known['cpu_count']} CPUs, {', '.join(units)}); {versions}; commit {known['commit']}"


CASES: dict[str, Callable[[int, Callable[[str], None]], list[Row]]] = {
    "resnet20": lambda rounds, tell: run_race("resnet20", resnet20(), rounds, tell),
    "frameworks": lambda rounds, tell: run_race("frameworks", frameworks(), rounds, tell),
    "resnet152": lambda rounds, tell: run_race("resnet152", resnet152(), rounds, tell),
    "probes": run_probes,
    "hardware": run_hardware,
}


def main() -> None:
    """Measure the chosen cases and print one table."""
    parser = argparse.ArgumentParser(prog="python -m tests.perf.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES, help="repeat for several; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each contender (default: 5)")
    chosen = parser.parse_args()
    if chosen.rounds < significance.FEWEST:
        parser.error(f"--rounds is {chosen.rounds}; give {significance.FEWEST} or more, which an interval needs")
    console = Console(stderr=True)
    torch.set_num_threads(environment.cpu_count())
    rows, bystanders = [], Bystanders()
    with console.status("starting") as status:
        for case in chosen.case or CASES:
            rows += CASES[case](chosen.rounds, status.update)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table(rows, bystanders.share()))
    if find_spec("lightning") is None:
        console.print("Lightning is not installed and was left out: pip install -e '.[perf]'")


if __name__ == "__main__":
    main()
