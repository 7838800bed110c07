"""Which micro-batch x accumulation reaches an effective batch within a memory limit? What dominates its memory?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.instruments.parts import PARTS, Part
from bench.memory.footprint import Footprint, at_batch
from bench.record.csvfile import write_table
from bench.trial import Trial
from launch.memory import footprint_cache
from launch.memory.devices import Budget
from launch.memory.footprint_cache import Prediction
from launch.memory.helpers import predict_all, side_by_side
from models.names import has_blocks

# Settings that do not change a trial's peak memory, at one value for all. (micro_batch does, but is set later.)
NO_EFFECT: dict[str, Any] = {"arm": "", "repeat": 0, "accumulate": 1, "weights": "none", "lr": 0.1, "lr_batch": None}
NO_EFFECT |= {"weight_decay": 0.0, "milestones": (), "gamma": 0.1, "warmup": 0.0, "warmup_windows": 0, "seed": 0}
NO_EFFECT |= {"micro_batch": 2}
# The micro-batches that are predicted. Memory is linear in the micro-batch, so two give all others.
TRACED = (2, 4)


@dataclass
class Plan:
    """One micro-batch x accumulation, and its predicted memory on each device.

    `fits`: "yes", "no", or "tight": only if the allocator returns cached memory to the device and requests it again,
    which takes time. `arms`: those that share this plan. `measured`: the row of trials.csv, once the plan was run.
    """

    trial: Trial
    arms: tuple[str, ...]
    limit_bytes: int
    footprint: Footprint
    fits: str
    chosen: bool = False
    why: str = ""
    measured: dict[str, str] = dataclasses.field(default_factory=dict)

    def label(self) -> str:
        """Micro-batch x accumulation."""
        return f"{self.trial.micro_batch}x{self.trial.accumulate}"

    def passes(self) -> str:
        """Micro-batches in a step."""
        return "one pass" if self.trial.accumulate == 1 else f"{self.trial.accumulate} passes"

    def described(self) -> str:
        """Micro-batch x accumulation, the precision, and what is recomputed."""
        return ", ".join(
            [self.label(), self.trial.precision, *([f"{self.recomputed()} recomputed"] * self.recomputes())]
        )

    def recomputes(self) -> bool:
        """Whether activations are computed again in the backward pass."""
        return self.trial.checkpoint_activations != "none"

    def recomputed(self) -> str:
        """What is computed again: "blocks", "stages" or ""."""
        return f"{self.trial.checkpoint_activations}s" if self.recomputes() else ""

    def dominant(self) -> tuple[str, int]:
        """The largest part at the peak, and its bytes."""
        return max(self.footprint.parts.items(), key=lambda item: item[1])


def plans(trials: Sequence[Trial], effective_batch: int, budget: Budget, recompute: bool = False) -> list[Plan]:
    """All plans of each trial, largest micro-batch first. For each arm, one is `chosen`.

    Trials that are `alike` share their plans. With `recompute`, also plans that recompute blocks, where these allow a
    larger micro-batch than all plans without. Raises UsageError if the processes do not divide the effective batch, or
    the weights alone do not fit.
    """
    found = _all_plans(trials, effective_batch, budget)
    if recompute and (more := _recomputing(trials, found)):
        found += [plan for plan in _all_plans(more, effective_batch, budget) if _is_larger(plan, found)]
    order = [(trial.arm, trial.precision) for trial in trials]
    by_arms: dict[tuple[str, ...], list[Plan]] = {}
    for plan in found:
        by_arms.setdefault(plan.arms, []).append(plan)
    for group in by_arms.values():
        group.sort(key=lambda plan: (order.index((plan.trial.arm, plan.trial.precision)), -plan.trial.micro_batch))
        _choose(group)
    return [plan for group in by_arms.values() for plan in group]


def _recomputing(trials: Sequence[Trial], plans: Sequence[Plan]) -> list[Trial]:
    """The trials whose whole batch does not fit at once, with blocks recomputed.

    Not stages: for as much computation these keep more, all that a stage's blocks compute.
    """
    at_once = [plan for plan in plans if plan.fits == "yes" and plan.trial.accumulate == 1]
    done = {(arm, plan.trial.precision) for plan in at_once for arm in plan.arms}
    return [
        dataclasses.replace(trial, checkpoint_activations="block")
        for trial in trials
        if (trial.arm, trial.precision) not in done and not trial.trains_head_alone() and has_blocks(trial.model)
    ]


def _is_larger(plan: Plan, others: Sequence[Plan]) -> bool:
    """Whether this plan fits with a larger micro-batch than all others of its arms and precision."""
    same = [each for each in others if (each.arms, each.trial.precision) == (plan.arms, plan.trial.precision)]
    most = max((each.trial.micro_batch for each in same if each.fits == "yes"), default=0)
    return plan.fits == "yes" and plan.trial.micro_batch > most


def _all_plans(trials: Sequence[Trial], effective_batch: int, budget: Budget) -> list[Plan]:
    """Every plan of each trial, largest micro-batch first."""
    same_memory: dict[Trial, list[Trial]] = {}
    for trial in trials:
        same_memory.setdefault(alike(trial), []).append(trial)
    jobs = [
        dataclasses.replace(trial, accumulate=accumulate, micro_batch=micro_batch)
        for trial in same_memory
        for micro_batch in TRACED
        for accumulate in (1, 2)
    ]
    footprints, images, _ = zip(*_predict_all(jobs, budget), strict=True)
    if effective_batch > min(images):
        raise UsageError(f"--effective-batch {effective_batch} is more than the {min(images)} training images")
    predicted = dict(zip(jobs, footprints, strict=True))
    found = []
    for trial, members in same_memory.items():
        arms = tuple(dict.fromkeys(member.arm for member in members))
        for micro_batch, accumulate in splits(effective_batch, trial.processes):
            footprint = _footprint(trial, micro_batch, accumulate, predicted)
            found.append((members[0], arms, micro_batch, accumulate, budget, footprint))
    return side_by_side(_plan, found)


def alike(trial: Trial) -> Trial:
    """The trial that stands for all that take the same memory. Dropout takes a mask at any rate, and none at 0."""
    return dataclasses.replace(
        trial,
        **NO_EFFECT | ({"arm": trial.arm} if trial.experiment_file else {}),  # a model of the user's own may look at it
        dropout=tuple(0.5 if rate else 0.0 for rate in trial.dropout),
        body_dropout=0.5 if trial.body_dropout else 0.0,
        body_dropout_after=trial.body_dropout_after if trial.body_dropout else (),
    )


def splits(effective_batch: int, processes: int) -> Iterator[tuple[int, int]]:
    """(micro-batch, accumulation) that reach the effective batch, largest micro-batch first.

    A micro-batch of one image, over which BatchNorm cannot always normalise, is left out if there are others.
    """
    per_process, remainder = divmod(effective_batch, processes)
    if remainder or per_process < 1:
        near = [n for n in (per_process * processes, (per_process + 1) * processes) if n > 0]
        raise UsageError(
            f"--effective-batch {effective_batch} cannot be shared by {processes} processes; "
            f"give {' or '.join(map(str, near))}"
        )
    smallest = min(2, per_process)
    for micro_batch in range(per_process, smallest - 1, -1):
        if per_process % micro_batch == 0:
            yield micro_batch, per_process // micro_batch


def _predict_all(jobs: Sequence[Trial], budget: Budget) -> list[Prediction]:
    """What each trial takes; of those in earlier plans without another trace."""
    files = [footprint_cache.path_for(job, budget) if footprint_cache.is_kept(job, budget) else None for job in jobs]
    read = {job: footprint_cache.read(file) for job, file in zip(jobs, files, strict=True) if file}
    found = {job: kept for job, kept in read.items() if kept and kept.holds(job)}
    missing = [job for job in jobs if job not in found]
    if missing:
        found |= zip(missing, predict_all(missing, budget), strict=True)
    for job, file in zip(jobs, files, strict=True):
        if file and job in missing:
            footprint_cache.write(file, found[job])
    return [found[job] for job in jobs]


def _footprint(trial: Trial, micro_batch: int, accumulate: int, predicted: dict[Trial, Footprint]) -> Footprint:
    # Memory is the same for all accumulations above 1, and for a micro-batch of one image, which is padded to two.
    trial = dataclasses.replace(trial, accumulate=min(accumulate, 2))
    by_batch = {batch: predicted[dataclasses.replace(trial, micro_batch=batch)] for batch in TRACED}
    return at_batch(max(TRACED[0], micro_batch), by_batch)


def _plan(
    trial: Trial, arms: tuple[str, ...], micro_batch: int, accumulate: int, budget: Budget, footprint: Footprint
) -> Plan:
    weights = footprint.parts.get("weights", 0)
    if weights > budget.bytes:
        raise UsageError(
            f"the weights of {trial.model} alone take {weights} bytes, more than the limit of {budget.bytes}; "
            f"give a larger --memory-limit, or a smaller --model"
        )
    fits = "no"
    if footprint.fits(budget.bytes):
        fits = "yes" if footprint.limited_bytes <= budget.bytes else "tight"
    trial = dataclasses.replace(trial, micro_batch=micro_batch, accumulate=accumulate)
    return Plan(trial, arms, budget.bytes, footprint, fits)


def _choose(group: Sequence[Plan]) -> None:
    """Choose the plan with the fewest passes per step that fits; among equals, the first precision given.

    One that recomputes only where no other fits: it computes more, and whether fewer passes make up for that depends on
    the device.
    """
    fitting = [plan for plan in group if plan.fits == "yes"] or [plan for plan in group if plan.fits == "tight"]
    if not fitting:
        return
    best = min(fitting, key=lambda plan: (plan.recomputes(), plan.trial.accumulate))
    spare = 1 - best.footprint.limited_bytes / best.limit_bytes
    best.chosen = True
    passes = best.passes()
    fewer = {plan.fits for plan in group if plan.trial.accumulate < best.trial.accumulate}
    without = ["recomputing"] * ("yes" in fewer) + ["returning cached memory"] * ("tight" in fewer)
    fewest = "the fewest that fit" + f" without {' or '.join(without)}" * bool(without)
    best.why = f"{passes} per step, {fewest}; {max(spare, 0):.0%} of the limit to spare"
    if best.fits == "tight":
        best.why = f"{passes} per step; fits only by returning cached memory again and again: expect it to be slow"


def write(path: Path, plans: Sequence[Plan]) -> None:
    """Write plan.csv, a row for each plan."""
    write_table(path, [row(plan, PARTS) for plan in plans])


def row(plan: Plan, parts: Sequence[Part]) -> dict[str, Any]:
    """Column -> value. Bytes are those of one process."""
    trial = plan.trial
    columns = ("experiment", "model", "precision", "micro_batch", "accumulate", "processes", "checkpoint_activations")
    return {
        **{name: getattr(trial, name) for name in columns},
        "arms": plan.arms,
        "effective_batch": trial.effective_batch(),
        "limit_bytes": plan.limit_bytes,
        "predicted_allocated_bytes": plan.footprint.allocated_bytes,
        "predicted_reserved_bytes": plan.footprint.reserved_bytes,
        "dominant_part": plan.dominant()[0],
        **{part.lower().replace(" ", "_") + "_bytes": plan.footprint.parts.get(part, 0) for part in parts},
        "fits": plan.fits,
        "chosen": plan.chosen,
        "why": plan.why or None,
        **{name: plan.measured.get(name) for name in MEASURED},
    }


# Columns of trials.csv that plan.csv repeats for a plan that was run.
MEASURED = (
    "status",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "peak_rss_bytes",
    "base_rss_bytes",
    "images_per_s",
    "launch_id",
)


def neighbours(plans: Sequence[Plan]) -> list[Plan]:
    """Each chosen plan, those of its arm and precision with the next smaller and larger micro-batch, and its rival.

    That is the plan that recomputes with the largest micro-batch, if the chosen one recomputes nothing.
    """
    result: list[Plan] = []
    for best in (plan for plan in plans if plan.chosen):
        same = [plan for plan in plans if plan.arms == best.arms and plan.trial.precision == best.trial.precision]
        alike = [plan for plan in same if plan.recomputed() == best.recomputed()]
        index = next(index for index, plan in enumerate(alike) if plan is best)
        result += alike[max(0, index - 1) : index + 2]
        if (rival := rival_of(best, same)) is not None:
            result.append(rival)
    return result


def rival_of(best: Plan, plans: Sequence[Plan]) -> Plan | None:
    """The plan of the same precision that fits a larger micro-batch by recomputing; None: there is none."""
    same = [plan for plan in plans if plan.trial.precision == best.trial.precision and plan.fits == "yes"]
    rivals = [plan for plan in same if plan.recomputes() and plan.trial.micro_batch > best.trial.micro_batch]
    return None if best.recomputes() or not rivals else max(rivals, key=lambda plan: plan.trial.micro_batch)


def gib(amount: int | None) -> str:
    """Bytes as GiB, with a third digit below 1 GiB for small models; "" for None."""
    return "" if amount is None else f"{amount / 2**30:.{2 if amount >= 2**30 or not amount else 3}f}"
