"""The three main experiments on stand-in GPUs: `python -m tests.standin_cuda.trials` writes tests/STANDIN.md.

Each in float32, bf16 and fp16, on one GPU and on two, beside the CPU; and under a limit on memory that is too low, with
a trial after it. Small settings: the CPU computes what is trained.
"""

from __future__ import annotations

import csv
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine import environment
from bench.probes.device import NEEDS

from . import build
from .standin import Standin

CHECKOUT = Path(__file__).resolve().parent.parent.parent
OUT = CHECKOUT / "tests" / "STANDIN.md"
ARMS = {"resnet20_accumulation": "16x4", "resnet152_frozen": "bn_eval", "resnet152_noskip": "corrected"}
SMALL = ["--arm", ",".join(ARMS.values()), "--preset", "mini", "--micro-batch", "8", "--epochs", "1"]
SMALL += ["--limit-train", "96", "--limit-eval", "50", "--warmup-windows", "0", "--no-checkpoint"]
SMALL += ["--lr", "0.001"]
TOO_LITTLE, ENOUGH = "3MiB", "8GiB"
# What torch knows of any GPU, and NVML of these; besides, whatever the row of a CPU has.
KNOWN = ["device_name", "device_count", "devices", "cuda", "driver", "peak_allocated_bytes", "peak_reserved_bytes"]
KNOWN += list(NEEDS)
RESULTS = ("train_loss", "train_accuracy", "eval_loss", "eval_accuracy")
# Between a GPU's and a CPU's bf16, whose autocasts round in other places; fp16 is held against float32, where loss
# scaling has skipped no step: one less of the few is another training.
ROUNDING = {"loss": 0.02, "accuracy": 0.06}
Row = Mapping[str, str]
# `python -m launch` with these words.
Launch = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Compared:
    """A trial on the stand-in, the CPU's that it is held against, and what is wrong with it."""

    row: Row
    cpu: Row
    problems: list[str]


# What a CPU's row may have and a GPU's not: CPU time; and in such short trials it is chance which rank stands apart.
NOT_WANTED = ("step_cpu_time_p50_s", "slowest_rank", "slowest_rank_device")
Found = tuple[list[Compared], list[Row]]


def sweep(words: Sequence[str], out: Path, launch: Launch) -> list[Row]:
    """The rows of `launch run` with these words, which may also end with trials that ended otherwise than well."""
    done = launch("run", *ARMS, *SMALL, *words, "--out", str(out))
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(words)}: {done.stderr}")
    with open(out / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def started(variables: Mapping[str, str | None], *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m launch` with these words, run to its end."""
    changed = {name: value for name, value in {**os.environ, **variables}.items() if value is not None}
    command = [sys.executable, "-m", "launch", *words]
    return subprocess.run(command, cwd=CHECKOUT, env=changed, capture_output=True, text=True, check=False)


PLAIN: Launch = functools.partial(started, {})


def compared(gpu: Sequence[Row], cpu: Sequence[Row]) -> Iterator[Compared]:
    """Each trial beside the CPU's of the same processes and precision, of fp16 that in float32."""
    for row in gpu:
        precision = "no" if row["precision"] == "fp16" else row["precision"]
        same = (row["experiment"], row["processes"], precision)
        (other,) = [each for each in cpu if (each["experiment"], each["processes"], each["precision"]) == same]
        yield Compared(row, other, problems(row, other))


def problems(row: Row, cpu: Row) -> list[str]:
    """What is wrong with a row: it is not ok, has empty cells, or other results than the CPU's."""
    if row["status"] != "ok":
        return [f"{row['status']}: {row['error']}"]
    wanted = dict.fromkeys([*KNOWN, *(name for name in cpu if cpu[name] and name not in NOT_WANTED)])
    found = [f"{name} is empty" for name in wanted if not row[name]]
    for name in RESULTS:
        ours, theirs = float(row[name]), float(cpu[name])
        within = ROUNDING["loss"] * theirs if name.endswith("loss") else ROUNDING["accuracy"]
        if row["precision"] == "no" and row[name] != cpu[name]:
            found.append(f"{name} is {row[name]}, the CPU's {cpu[name]}")
        elif abs(ours - theirs) > within and row["skipped_steps"] in ("", "0"):
            found.append(f"{name} is {ours:.4f}, the CPU's {theirs:.4f}")
    return found


def limited(rows: Sequence[Row]) -> list[str]:
    """What is wrong with trials of which each first has too little memory, and the next one enough."""
    found = []
    for little, enough in zip(rows[::2], rows[1::2], strict=True):
        name = f"{little['experiment']}, {little['processes']} GPU(s)"
        if little["status"] != "oom" or not little["oom_phase"] or not int(little["oom_requested_bytes"] or 0):
            found.append(f"{name} with too little: {little['status']} {little['oom_phase']}: {little['error']}")
        if enough["status"] != "ok":
            found.append(f"{name} after it: {enough['status']}: {enough['error']}")
    return found


def on(
    standin: Standin,
    out: Path,
    precisions: str,
    gpus: Sequence[int],
    limits: Sequence[int],
    on_cpu: Launch = PLAIN,
) -> Found:
    """The trials on so many GPUs beside the CPU's, which `on_cpu` runs, and those under a limit."""
    on_gpu = functools.partial(started, standin.variables(max(gpus)))
    processes = ["--processes", ",".join(map(str, gpus))]
    gpu = sweep(["--precision", precisions, *processes], out / "gpu", on_gpu)
    plain = ",".join(name for name in precisions.split(",") if name != "fp16")
    cpu = sweep(["--precision", plain, *processes, "--device", "cpu"], out / "cpu", on_cpu)
    under = ["--precision", "no", "--processes", ",".join(map(str, limits))]
    under += ["--memory-limit", f"{TOO_LITTLE},{ENOUGH}"]
    return list(compared(gpu, cpu)), sweep(under, out / "limited", on_gpu)


def table(found: Sequence[Compared], under: Sequence[Row], minutes: float) -> str:
    """The whole file."""
    versions = "torch {torch}, accelerate {accelerate}, commit {commit}".format(**environment.machine())
    wrong = [f"{each.row['experiment']}: {problem}" for each in found for problem in each.problems] + limited(under)
    lines = [
        "# On stand-in GPUs",
        "",
        "Trials of the three main experiments on GPUs that are not there (tests/standin_cuda), in small settings,",
        f"beside the CPU. Written by `python -m tests.standin_cuda.trials`; {versions}; {minutes:.0f} minutes.",
        "",
        f"{len(found) + len(under)} trials, {len(wrong)} problems{': ' if wrong else '.'}{'; '.join(wrong)}",
        "",
        "| experiment | GPUs | precision | status | backend | skipped | train loss | CPU's | eval accuracy | CPU's |",
        "| --- | ---: | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in found:
        row, cpu = each.row, each.cpu
        results = [row["train_loss"], cpu["train_loss"], row["eval_accuracy"], cpu["eval_accuracy"]]
        words = [
            row["experiment"],
            row["processes"],
            row["precision"],
            row["status"],
            row["backend"],
            row["skipped_steps"],
            *results,
        ]
        lines.append(f"| {' | '.join(words)} |")
    lines += [
        "",
        "fp16 stands beside the CPU's float32, and may differ where steps were skipped.",
        "",
        f"None of these is empty: {', '.join(KNOWN)}.",
        "",
    ]
    lines += [f"Under a limit of {TOO_LITTLE}, and the trial after it, of {ENOUGH}:", ""]
    lines += [
        "| experiment | GPUs | status | phase | asked for | held | after it |",
        "| --- | ---: | --- | --- | ---: | ---: | --- |",
    ]
    for little, enough in zip(under[::2], under[1::2], strict=True):
        words = [little["experiment"], little["processes"], little["status"], little["oom_phase"]]
        words += [little["oom_requested_bytes"], little["oom_held_bytes"], enough["status"]]
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Run them, write the file; the exit code is 1 where there is a problem."""
    if reason := build.why_not():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="standin-trials-") as folder:
        build.build(Path(folder))
        found, under = on(Standin(Path(folder)), Path(folder), "no,bf16,fp16", (1, 2), (1, 2))
    OUT.write_text(table(found, under, (time.monotonic() - began) / 60))
    print(OUT.read_text())
    return 1 if limited(under) or any(each.problems for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())
