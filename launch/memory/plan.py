"""Which micro-batch x accumulation reaches an effective batch within a memory limit, and what dominates the memory."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import dataclasses
import functools
import io
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench.errors import UsageError
from bench.machine import environment
from bench.record.csvfile import cell, write_whole
from bench.trial import Trial
from launch.memory.devices import Budget

if TYPE_CHECKING:
    from bench.memory.footprint import Footprint

# What a trial's peak memory does not depend on.
FREE: dict[str, Any] = {"arm": "", "repeat": 0, "accumulate": 1, "weights": "none", "lr": 0.1, "lr_batch": None}
FREE |= {"weight_decay": 0.0, "milestones": (), "gamma": 0.1, "warmup": 0.0, "warmup_windows": 0, "seed": 0}
FREE |= {"micro_batch": 2}
PR_SET_PDEATHSIG = 1  # of sys/prctl.h
TRACED = (2, 4)  # micro-batches: all others lie on their line


@dataclass
class Plan:
    """One way to the effective batch, and what it takes on each device. `fits`: yes, tight, or no.

    `limited_bytes`: what counts against the limit. tight: only by giving cached memory back and taking it again, which
    costs time.
    """

    trial: Trial
    arms: tuple[str, ...]
    limit_bytes: int
    predicted_allocated_bytes: int
    predicted_reserved_bytes: int | None
    limited_bytes: int
    parts: Mapping[str, int]
    fits: str
    chosen: bool = False
    why: str = ""
    measured: dict[str, str] = dataclasses.field(default_factory=dict)

    def way(self) -> str:
        """Micro-batch x accumulation."""
        return f"{self.trial.micro_batch}x{self.trial.accumulate}"

    def dominant(self) -> tuple[str, int]:
        """The largest part at the peak, and its bytes."""
        return max(self.parts.items(), key=lambda item: item[1])


def plans(trials: Sequence[Trial], effective_batch: int, budget: Budget) -> list[Plan]:
    """Every way that each trial has to the effective batch, largest micro-batch first; one of each arm is chosen.

    Trials that differ in nothing that takes memory are one. UsageError: the processes do not divide the effective
    batch, or the weights alone do not fit.
    """
    alike: dict[Trial, list[Trial]] = {}
    for trial in trials:
        alike.setdefault(dataclasses.replace(trial, **FREE), []).append(trial)
    jobs = [
        dataclasses.replace(trial, accumulate=accumulate, micro_batch=micro_batch)
        for trial in alike
        for accumulate in (1, 2)
        for micro_batch in TRACED
    ]
    footprints, images = zip(*_traced(jobs, budget), strict=True)
    if effective_batch > min(images):
        raise UsageError(f"--effective-batch {effective_batch} is more than the {min(images)} training images")
    traced = dict(zip(jobs, footprints, strict=True))
    found: list[Plan] = []
    by_arms: dict[tuple[str, ...], list[Plan]] = {}
    for trial, members in alike.items():
        arms = tuple(dict.fromkeys(member.arm for member in members))
        for micro_batch, accumulate in ways(effective_batch, trial.processes):
            plan = _plan(
                members[0], arms, micro_batch, accumulate, budget, _footprint(trial, micro_batch, accumulate, traced)
            )
            by_arms.setdefault(arms, []).append(plan)
    for group in by_arms.values():
        _choose(group)
        found += group
    return found


def ways(effective_batch: int, processes: int) -> Iterator[tuple[int, int]]:
    """(micro-batch, accumulation) that reach the effective batch, largest micro-batch first.

    A micro-batch of one image, which BatchNorm may not be able to normalise, is left out where there are others.
    """
    each, over = divmod(effective_batch, processes)
    if over or each < 1:
        near = [n for n in (each * processes, (each + 1) * processes) if n > 0]
        raise UsageError(
            f"--effective-batch {effective_batch} cannot be shared by {processes} processes; "
            f"give {' or '.join(map(str, near))}"
        )
    smallest = min(2, each)
    for micro_batch in range(each, smallest - 1, -1):
        if each % micro_batch == 0:
            yield micro_batch, each // micro_batch


def _traced(jobs: Sequence[Trial], budget: Budget) -> list[tuple[Footprint, int]]:
    """Each trial's footprint and training images; several at once, in copies of one process that has torch imported."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["bench.memory.prediction"])
    # The helpers are ended from here: Ctrl-C reaches them too, and they would say so at length.
    heeded = signal.signal(signal.SIGINT, signal.SIG_IGN)
    forkserver.ensure_running()
    signal.signal(signal.SIGINT, heeded)
    pool = ProcessPoolExecutor(min(len(jobs), environment.cpu_count()), context, _end_with_parent)
    try:
        return list(pool.map(functools.partial(_predict, budget), jobs))
    except BaseException:
        for helper in psutil.Process().children(recursive=True):  # one that is still starting too
            with contextlib.suppress(psutil.NoSuchProcess):
                if "forkserver" in " ".join(helper.cmdline()):
                    helper.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Have the kernel end this helper with the process that it is a copy of, which ends with the command."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:  # it has ended already
        os._exit(1)


def _predict(budget: Budget, trial: Trial) -> tuple[Footprint, int]:
    from bench.memory.prediction import predict, shapes

    # Of two batches whose last windows are no measure for a third's.
    found = predict(trial, budget.backend, capability=budget.capability, last=False)
    return found, len(shapes(trial).train)


def _footprint(trial: Trial, micro_batch: int, accumulate: int, traced: dict[Trial, Footprint]) -> Footprint:
    from bench.memory.footprint import at_batch

    of = dataclasses.replace(trial, accumulate=min(accumulate, 2))
    # A micro-batch of one image is filled up to two.
    return at_batch(max(TRACED[0], micro_batch), {b: traced[dataclasses.replace(of, micro_batch=b)] for b in TRACED})


def _plan(
    trial: Trial, arms: tuple[str, ...], micro_batch: int, accumulate: int, budget: Budget, footprint: Footprint
) -> Plan:
    weights = footprint.parts.get("weights", 0)
    if weights > budget.bytes:
        raise UsageError(
            f"a limit of {budget.bytes} bytes is below what the weights of {trial.model} alone take, {weights}; "
            f"give a larger --memory-limit, or a smaller --model"
        )
    fits = "no"
    if footprint.fits(budget.bytes):
        fits = "yes" if footprint.limited_bytes <= budget.bytes else "tight"
    return Plan(
        trial=dataclasses.replace(trial, micro_batch=micro_batch, accumulate=accumulate),
        arms=arms,
        limit_bytes=budget.bytes,
        predicted_allocated_bytes=footprint.allocated_bytes,
        predicted_reserved_bytes=footprint.reserved_bytes,
        limited_bytes=footprint.limited_bytes,
        parts=footprint.parts,  # type: ignore[arg-type]  # of which each is a str
        fits=fits,
    )


def _choose(group: Sequence[Plan]) -> None:
    """Mark the plan of the fewest passes per step that fits; at equal passes the first precision asked for."""
    fitting = [plan for plan in group if plan.fits == "yes"] or [plan for plan in group if plan.fits == "tight"]
    if not fitting:
        return
    best = min(fitting, key=lambda plan: plan.trial.accumulate)
    spare = 1 - best.limited_bytes / best.limit_bytes
    best.chosen = True
    passes = "one pass" if best.trial.accumulate == 1 else f"{best.trial.accumulate} passes"
    fewest = "the fewest that fit"
    if any(plan.fits == "tight" and plan.trial.accumulate < best.trial.accumulate for plan in group):
        fewest += " without giving memory back"
    best.why = f"{passes} per step, {fewest}; {max(spare, 0):.0%} of the limit to spare"
    if best.fits == "tight":
        best.why = f"{passes} per step; fits only by giving cached memory back: expect it to be slow"


def write(path: Path, found: Sequence[Plan]) -> None:
    """plan.csv: a row for each plan, whole or not at all."""
    from bench.instruments.storage_tracker import PARTS

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = [row(plan, PARTS) for plan in found]
    writer.writerow(rows[0])
    writer.writerows([cell(value) for value in each.values()] for each in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.getvalue())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another --out") from error


def row(plan: Plan, parts: Sequence[str]) -> dict[str, Any]:
    """Column -> value. Bytes are one process's."""
    trial = plan.trial
    columns = ("experiment", "model", "precision", "micro_batch", "accumulate", "processes")
    return {
        **{name: getattr(trial, name) for name in columns},
        "arms": plan.arms,
        "effective_batch": trial.effective_batch(),
        "limit_bytes": plan.limit_bytes,
        "predicted_allocated_bytes": plan.predicted_allocated_bytes,
        "predicted_reserved_bytes": plan.predicted_reserved_bytes,
        "dominant_part": plan.dominant()[0],
        **{part.lower().replace(" ", "_") + "_bytes": plan.parts.get(part, 0) for part in parts},
        "fits": plan.fits,
        "chosen": plan.chosen,
        "why": plan.why or None,
        **{name: plan.measured.get(name) for name in MEASURED},
    }


# Of the trials.csv row of a plan that was run.
MEASURED = (
    "status",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "peak_rss_bytes",
    "base_rss_bytes",
    "images_per_s",
    "launch_id",
)


def neighbours(found: Sequence[Plan]) -> list[Plan]:
    """The chosen plans, and of the same arm and precision those with the next smaller and larger micro-batch."""
    picked: list[Plan] = []
    for best in (plan for plan in found if plan.chosen):
        same = [plan for plan in found if plan.arms == best.arms and plan.trial.precision == best.trial.precision]
        at = next(index for index, plan in enumerate(same) if plan is best)
        picked += same[max(0, at - 1) : at + 2]
    return picked


def gib(amount: int | None) -> str:
    """Bytes as GiB with the digits that a small model needs."""
    return "" if amount is None else f"{amount / 2**30:.{2 if amount >= 2**30 or not amount else 3}f}"
