"""Predict which micro-batch x accumulation fits a memory limit.

All of them reach the effective batch. Two settings may have several values: --precision no,bf16 and
--checkpoint-activations none,block,stage. Without the latter, plans that recompute blocks are listed where they allow a
larger micro-batch. Writes plan.csv into the run folder.

Exit code 1: no plan fits; with --measure, also: a plan did not run as predicted.
"""

from __future__ import annotations

import argparse
import dataclasses

from rich.console import Console

from bench.arguments import Parser, at_least
from bench.errors import UsageError
from launch.interrupts import before_any_trial
from launch.memory import limits, plan, plan_tables
from launch.sweep import arguments as declared
from launch.sweep import matrix, option_words

GROUP = "What fits"
EXAMPLES = ("resnet50_transfer --effective-batch 64 --memory-limit 2GiB",)
SEVERAL = ("precision", "checkpoint_activations")


def arguments(parser: Parser) -> None:
    declared.experiments_argument(parser, several=False)
    what = parser.add_argument_group("what is planned")
    what.add_argument(
        "--effective-batch",
        type=at_least(1),
        required=True,
        metavar="N",
        help="images of one optimizer step, over all processes, such as 256",
    )
    what.add_argument(
        "--measure", action="store_true", help="run the chosen plan and its neighbours under the limit too"
    )
    declared.one_trial(parser)


def run(options: argparse.Namespace) -> int:
    """List the plans, write plan.csv, and with --measure run some of them. Imports torch to predict."""
    for field in ("micro_batch", "accumulate"):
        if field in options.given:
            field = f"--{field.replace('_', '-')}"
            raise UsageError(f"plan finds --micro-batch and --accumulate itself; leave {field} out")
    gpus = limits.gpus(options.device)
    budget = limits.budget(options, gpus)
    words = option_words.without(options.words, option_words.OTHERS)
    name, effective_batch, measure = options.experiment, options.effective_batch, options.measure
    trials, launch = matrix.trials(name, options.arm, words, options.preset)
    if others := [axis for axis in option_words.axes(words) if axis not in SEVERAL]:
        named = " and ".join(f"--{axis.replace('_', '-')}" for axis in SEVERAL)
        raise UsageError(f"plan takes several values of {named} alone, not of --{others[0].replace('_', '-')}")
    if measure and budget.backend == "cuda" and not gpus:
        raise UsageError("--measure needs the GPU that is planned for, and there is none here; plan with --device cpu")
    trials = [dataclasses.replace(trial, memory_limit_bytes=budget.bytes) for trial in trials]
    with before_any_trial():
        plans = plan.plans(trials, effective_batch, budget, recompute="checkpoint_activations" not in options.given)
    plan_tables.show_plans(name, effective_batch, plans, budget)
    path = launch.out / "plan.csv"
    plan.write(path, plans)  # now, in case that measuring is interrupted
    code = 0
    if measure:
        chosen = plan.neighbours(plans)
        if not chosen:
            raise UsageError("no plan fits, so there is none to measure; give a larger --memory-limit")
        from launch.sweep import plan_measurement  # takes a while, and a plan alone needs nothing of it

        code = plan_measurement.measure(chosen, launch, gpus, options.given)
        plan_tables.show_measured(chosen, gpus)
        plan.write(path, plans)
    Console(stderr=True).print(f"details in {path}", highlight=False)
    return code if any(each.chosen for each in plans) else 1
