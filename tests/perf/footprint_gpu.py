"""Predicted memory against torch's own peaks on the stand-in GPU, for each arm of the suite: a part of FOOTPRINT.md.

The arms train as they do in a trial (tests/perf/peaks.py), through torch's own CUDA build and its caching allocator, on
a GPU that computes nothing (tests/standin_cuda). What a real one takes besides is not in it: cuDNN's workspaces.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from standin_cuda import build
from standin_cuda.standin import Standin

from bench import experiments
from bench.memory.prediction import predict
from bench.trial import Trial

CHECKOUT = Path(__file__).resolve().parents[2]
CAPABILITY = (9, 0)
PRECISIONS: dict[Any, str] = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}
PROCESSES = (1, 2)
MIB = 2**20
TITLE = "## On a GPU that is not there"
# What makes no difference to memory, and the value that stands for all others.
ALIKE: dict[str, Any] = {
    "experiment": "",
    "arm": "",
    "weights": "none",
    "evaluate_on": "none",
    "epochs": 1,
    "lr": 0.1,
    "lr_batch": None,
    "weight_decay": 0.0,
    "milestones": (),
    "warmup": 0.0,
    "seed": 0,
    "limit_train": 5003,
}
Peaks = tuple[int, int]  # allocated, reserved


def distinct(names: Sequence[str]) -> dict[Trial, list[str]]:
    """Trials of which no two need the same memory, at the arms' own batch and at half of it -> the arms."""
    found: dict[Trial, list[str]] = {}
    for name in names:
        for arm in experiments.load(name).arms:
            trial = experiments.load(name).trial(name, arm)
            alike = dataclasses.replace(
                trial,
                **ALIKE,
                accumulate=min(trial.accumulate, 4),
                body_dropout=0.5 if trial.body_dropout else 0.0,
                body_dropout_after=trial.body_dropout_after if trial.body_dropout else (),
            )
            for batch in (trial.micro_batch, max(2, trial.micro_batch // 2)):
                found.setdefault(dataclasses.replace(alike, micro_batch=batch), []).append(f"{name} {arm}")
    return found


def begin(trials: Sequence[Trial], standin: Standin, folder: Path) -> list[subprocess.Popen[str]]:
    """The processes of a group that measures these trials, which are alike in processes and precision."""
    asked = folder / f"{trials[0].processes}_{trials[0].precision}.json"
    asked.write_text(json.dumps([trial.settings() for trial in trials]))
    processes = trials[0].processes
    more: dict[str, Any] = standin.variables(gpus=processes, capability="{}.{}".format(*CAPABILITY), arithmetic=False)
    if processes > 1:
        more |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        more |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = []
    for rank in range(processes):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        env = {name: value for name, value in {**os.environ, **more, **own}.items() if value is not None}
        with open(asked) as stdin, open(asked.with_suffix(f".{rank}.err"), "w") as stderr:
            words = [sys.executable, "-m", "tests.perf.peaks"]
            started.append(
                subprocess.Popen(
                    words, cwd=CHECKOUT, env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True
                )
            )
    return started


def answers(started: Sequence[subprocess.Popen[str]], trials: Sequence[Trial], folder: Path) -> list[Peaks]:
    """What rank 0 of a group has measured. RuntimeError: it has not measured all."""
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        texts = [path.read_text()[-3000:] for path in sorted(folder.glob("*.err"))]
        raise RuntimeError("\n".join(texts))
    found = [tuple(json.loads(line)) for line in said[0].splitlines()]
    if len(found) != len(trials):
        raise RuntimeError(f"{len(found)} trials of {len(trials)} were measured")
    return found


def compare(trials: Sequence[Trial], standin: Standin, folder: Path) -> Iterator[tuple[Trial, Peaks, Peaks]]:
    """(trial, predicted, torch's own) of each, measured while the prediction is made. `folder`: for what is said."""

    def kind(trial: Trial) -> tuple[int, str]:
        return trial.processes, trial.precision

    for _, group in itertools.groupby(sorted(trials, key=kind), kind):
        alike = list(group)
        started = begin(alike, standin, folder)
        predicted = [predict(trial, capability=CAPABILITY) for trial in alike]
        peaks = [(each.allocated_bytes, each.reserved_bytes or 0) for each in predicted]
        yield from zip(alike, peaks, answers(started, alike, folder), strict=True)


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def name_of(trial: Trial, arms: Sequence[str]) -> str:
    """A row's name: the first arm, and how many others need the same."""
    others = f" and {len(set(arms)) - 1} more" if len(set(arms)) > 1 else ""
    return f"{arms[0]}{others}, {trial.micro_batch}x{trial.accumulate}"


def section(names: Sequence[str]) -> str:
    """The part of FOOTPRINT.md, of these experiments or of all."""
    arms = distinct(names or experiments.names())
    found: dict[Trial, tuple[Peaks, Peaks]] = {}
    with tempfile.TemporaryDirectory() as folder:
        build.build(Path(folder))
        for trial, predicted, measured in compare(variants(arms), Standin(Path(folder)), Path(folder)):
            found[trial] = predicted, measured
            print(trial.model, trial.micro_batch, trial.processes, trial.precision, predicted, measured, flush=True)
    return table(arms, found, ", ".join(names) or "the suite")


def variants(trials: Iterable[Trial]) -> list[Trial]:
    """Each in one process and in two, at each precision."""
    return [
        dataclasses.replace(trial, processes=processes, precision=precision)
        for trial in trials
        for processes in PROCESSES
        for precision in PRECISIONS
    ]


def table(arms: dict[Trial, list[str]], found: dict[Trial, tuple[Peaks, Peaks]], whose: str) -> str:
    """What was found, a row for each arm, micro-batch and number of processes."""
    lines = []
    for trial, named in arms.items():
        alike = variants([trial])
        for processes in PROCESSES:
            cells = [
                f"{own / MIB:.1f} | {error:+.2%}"
                for each in alike
                if each.processes == processes
                for own, error in zip(found[each][1], errors(*found[each]), strict=True)
            ]
            lines.append(f"| {name_of(trial, named)} | {processes} | {' | '.join(cells)} |")
    head = [f"{how} {what} | error" for how in PRECISIONS.values() for what in ("allocated", "reserved")]
    text = (
        "Each arm of {}, on {} of its images, at its own and at half its micro-batch, in one process and in two: MiB "
        "by torch's own peaks on the stand-in GPU (compute capability {}.{}), and the prediction's error. {}."
    )
    return "\n".join(
        [
            TITLE,
            "",
            text.format(whose, ALIKE["limit_train"], *CAPABILITY, summary(found.values())),
            "",
            f"| arm, micro-batch | processes | {' | '.join(head)} |",
            "| --- " * (2 + 2 * len(head)) + "|",
            *lines,
            "",
        ]
    )


def errors(predicted: Peaks, measured: Peaks) -> list[float]:
    """Of allocated and reserved, relative."""
    return [one / other - 1 for one, other in zip(predicted, measured, strict=True)]


def summary(found: Collection[tuple[Peaks, Peaks]]) -> str:
    """Median and worst errors in a sentence."""
    every = [list(map(abs, errors(*each))) for each in found]
    words = [
        f"{name}: median {statistics.median(values):.2%}, worst {max(values):.2%}"
        for name, values in zip(("allocated", "reserved"), zip(*every, strict=True), strict=True)
    ]
    return f"{len(found)} trials; {'; '.join(words)}"
