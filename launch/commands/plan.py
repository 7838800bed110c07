"""The commands `plan` and `fit`: what fits a memory limit, by prediction and by trial. Imports torch to predict."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench import experiments
from bench.errors import UsageError
from bench.options import Options, take_option
from bench.record.run_folder import RunFolder
from bench.terminal import wide
from bench.trial import Trial
from launch.group import accelerate_command
from launch.memory import devices, limits, plan
from launch.run_options import RunOptions
from launch.sweep import fit, matrix, runner

# A plan is measured over its warm-up windows and this many more.
MEASURED_WINDOWS = 5


def take_budget(words: Sequence[str]) -> tuple[devices.Budget, int, list[str]]:
    """(what tensors may take, GPUs to run on, the other words). UsageError: no limit is given, or none that can be."""
    device, _ = take_option(words, "--device")
    gpus, rest = limits.take_device(words)
    text, rest = take_option(rest, "--memory-limit")
    limits.refuse_bytes(rest)
    reserve, rest = take_option(rest, "--reserve")
    if text is None:
        raise UsageError("give --memory-limit: a device such as orin-nano-8gb, bytes such as 7.4GiB, or auto")
    return devices.budget(text, reserve, gpus, device == "cpu", limits.processes(rest)), gpus, rest


def name_and_words(words: Sequence[str], what: str) -> tuple[str, list[str]]:
    """The experiment and the words behind it. UsageError: there is none."""
    if not words or words[0].startswith("-"):
        raise UsageError(f"{what} needs an experiment first; choose from: {', '.join(experiments.names())}")
    return words[0], list(words[1:])


def run_plan(words: Sequence[str]) -> int:
    """List what reaches an effective batch within a limit, write plan.csv, measure the chosen if asked to.

    The exit code: 1 where no plan fits, else that of measuring.
    """
    name, rest = name_and_words(words, "plan")
    text, rest = take_option(rest, "--effective-batch")
    if text is None or not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--effective-batch is {text}; give the images of one optimizer step, such as 256")
    measure, rest = limits.take_flag(rest, "--measure")
    for option in ("--micro-batch", "--accumulate"):
        if any(word.partition("=")[0] == option for word in rest):
            raise UsageError(f"plan finds --micro-batch and --accumulate itself; leave {option} out")
    budget, gpus, rest = take_budget(rest)
    arms, rest = take_option(rest, "--arm")
    trials, options = matrix.trials(name, arms, rest)
    if others := [axis for axis in matrix.axes(rest) if axis != "precision"]:
        raise UsageError(f"plan takes several values of --precision alone, not of --{others[0].replace('_', '-')}")
    if measure and budget.backend == "cuda" and not gpus:
        raise UsageError("--measure needs the GPU that is planned for, and there is none here; plan with --device cpu")
    trials = [dataclasses.replace(trial, memory_limit_bytes=budget.bytes) for trial in trials]
    found = plan.plans(trials, int(text), budget)
    show_plans(name, int(text), found, budget)
    path = options.out / "plan.csv"
    plan.write(path, found)
    if measure:
        measured = plan.neighbours(found)
        if not measured:
            raise UsageError("no plan fits, so there is none to measure; give a larger --memory-limit")
        code = measure_plans(measured, options, gpus, rest)
        show_measured(measured, gpus)
        plan.write(path, found)
    Console(stderr=True).print(f"{path} has all of it", highlight=False)
    if not any(each.chosen for each in found):
        return 1
    return code if measure else 0


def show_plans(name: str, effective_batch: int, found: Sequence[plan.Plan], budget: devices.Budget) -> None:
    """A table for each arm, the plan to choose, and what the budget is made of."""
    console = Console()
    for arms, group in itertools.groupby(found, lambda each: each.arms):
        plans = list(group)
        console.print(f"\n{name}, {arms_of(name, arms)}: effective batch {effective_batch}", soft_wrap=True)
        wide(console, table_of(plans, budget))
        best = next((each for each in plans if each.chosen), None)
        least = min(plans, key=lambda each: each.limited_bytes)
        choice = (
            f"choose {best.way()}, {best.trial.precision}: {best.why}"
            if best
            else (f"none fits: {least.way()}, {least.trial.precision} needs {plan.gib(least.limited_bytes)} GiB")
        )
        console.print(choice, highlight=False, soft_wrap=True)
    console.print(f"\nper process: {budget.explain()}", highlight=False, soft_wrap=True)


def table_of(plans: Sequence[plan.Plan], budget: devices.Budget) -> Table:
    """One arm's plans."""
    table = Table(box=box.SIMPLE_HEAD)
    reserved = ["reserved GiB"] if budget.backend == "cuda" else []
    for column in ("plan", "precision", "allocated GiB", *reserved, "of limit", "mostly", "fits"):
        table.add_column(column, justify="left" if column in ("precision", "mostly", "fits") else "right", no_wrap=True)
    for each in plans:
        part, size = each.dominant()
        table.add_row(
            each.way(),
            each.trial.precision,
            plan.gib(each.predicted_allocated_bytes),
            *([plan.gib(each.predicted_reserved_bytes)] if reserved else []),
            f"{each.limited_bytes / each.limit_bytes:.0%}",
            f"{part} {size / each.predicted_allocated_bytes:.0%}",
            f"{each.fits}, choose" if each.chosen else each.fits,
            style="bold" if each.chosen else None,
        )
    return table


def arms_of(name: str, arms: Sequence[str]) -> str:
    """The arms that a plan is for."""
    return "all" if len(arms) > 1 and set(arms) == set(experiments.load(name).arms) else ", ".join(arms)


def measure_plans(measured: Sequence[plan.Plan], options: Options, gpus: int, words: Sequence[str]) -> int:
    """Run these plans under the limit, and note what their rows say.

    The exit code: 0 too where one runs out of memory that was predicted not to fit.
    """
    given = {word.partition("=")[0] for word in words}

    def short(trial: Trial) -> Trial:
        """A few windows are enough, unless more are asked for."""
        wanted: dict[str, Any] = {"epochs": 1, "limit_windows": trial.warmup_windows + MEASURED_WINDOWS}
        return dataclasses.replace(
            trial, **{field: value for field, value in wanted.items() if f"--{field.replace('_', '-')}" not in given}
        )

    trials = [short(each.trial) for each in measured]
    for trial in trials:
        accelerate_command.check(trial, gpus)
    folder = RunFolder(options.out)
    before = len(folder.rows("trials"))
    options = dataclasses.replace(options, checkpoint=False)
    code = runner.run_all(trials, options, RunOptions(), gpus, ["micro_batch", "accumulate", "precision"])
    rows = {row["trial_key"]: row for row in folder.rows("trials")[before:]}
    for each, trial in zip(measured, trials, strict=True):
        each.measured = rows.get(trial.key(), {})
    as_said = all(each.measured.get("status") == "oom" for each in measured if each.fits == "no")
    others_ran = all(each.measured.get("status") == "ok" for each in measured if each.fits != "no")
    return 0 if code == 1 and as_said and others_ran else code


def show_measured(measured: Sequence[plan.Plan], gpus: int) -> None:
    """Predicted beside measured: memory, and what accumulation costs in images/s."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("arm", "plan", "precision", "status"):
        table.add_column(heading, no_wrap=True)
    kinds = ("allocated", "reserved") if gpus else ("of the process",)
    for heading in (*(f"{kind} GiB predicted, measured" for kind in kinds), "images/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in measured:
        pairs = zip(predicted_bytes(each, gpus), measured_bytes(each, gpus), strict=True)
        rate = each.measured.get("images_per_s")
        table.add_row(
            each.trial.arm,
            each.way(),
            each.trial.precision,
            each.measured.get("status", ""),
            *(f"{plan.gib(predicted)}, {plan.gib(found) or 'none'}" for predicted, found in pairs),
            f"{float(rate):.0f}" if rate else "",
        )
    wide(Console(), table)


def predicted_bytes(each: plan.Plan, gpus: int) -> list[int | None]:
    """On GPUs allocated and reserved, on a CPU what the process takes."""
    return [each.predicted_allocated_bytes, each.predicted_reserved_bytes] if gpus else [each.limited_bytes]


def measured_bytes(each: plan.Plan, gpus: int) -> list[int | None]:
    """The same as measured; on a CPU, what the process's resident memory grew by."""
    row = {name: int(value) for name, value in each.measured.items() if name.endswith("_bytes") and value}
    if gpus:
        return [row.get("peak_allocated_bytes"), row.get("peak_reserved_bytes")]
    peak, base = row.get("peak_rss_bytes"), row.get("base_rss_bytes")
    return [None if peak is None or base is None else peak - base]


def run_fit(words: Sequence[str]) -> int:
    """Find the largest micro-batch that runs within a limit, beside the predicted one."""
    name, rest = name_and_words(words, "fit")
    if any(word.partition("=")[0] == "--micro-batch" for word in rest):
        raise UsageError("fit finds --micro-batch itself; leave it out")
    budget, gpus, rest = take_budget(rest)
    arms, rest = take_option(rest, "--arm")
    if not any(word.partition("=")[0] == "--accumulate" for word in rest):
        rest += ["--accumulate", "1"]
    trials, options = matrix.trials(name, arms or next(iter(experiments.load(name).arms)), rest)
    if len(trials) != 1:
        raise UsageError(f"fit takes one arm and one value each, not {len(trials)} trials; run it once for each")
    trial = dataclasses.replace(trials[0], memory_limit_bytes=budget.bytes)
    accelerate_command.check(trial, gpus)
    found = fit.largest(trial, dataclasses.replace(options, checkpoint=False), gpus)
    fit.show(found, budget)
    fit.write(options.out / "fit.csv", found)
    return 0
