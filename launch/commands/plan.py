"""Predict which micro-batch x accumulation reaches an effective batch within a memory limit.

usage: python -m launch plan EXPERIMENT --effective-batch N --memory-limit LIMIT [--reserve BYTES] [--measure]
                  [--device auto|cpu|cuda] [--arm A,B] [options of one trial; two of them may have several values]

--measure    run the chosen plan and its neighbours under the limit too
--precision  several, such as no,bf16
--checkpoint-activations  none,block,stage or some of these; without it, plans that recompute blocks are listed where
             they allow a larger micro-batch
--memory-limit, --reserve: see python -m launch run --help

Writes plan.csv into the run folder. Exit code 1: no plan fits; with --measure, also: a plan did not run as predicted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rich.console import Console

from bench.errors import UsageError
from bench.options import take_option
from launch.memory import limits, plan, plan_tables
from launch.sweep import matrix, option_words

SEVERAL = ("precision", "checkpoint_activations")


def run(words: Sequence[str]) -> int:
    """List the plans, write plan.csv, and with --measure run some of them. Imports torch to predict."""
    name, rest = matrix.one_experiment(words, "plan")
    text, rest = take_option(rest, "--effective-batch")
    if text is None or not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--effective-batch is {text}; give the images of one optimizer step, such as 256")
    measure, rest = limits.take_flag(rest, "--measure")
    fields = option_words.fields(rest)
    for option in ("micro_batch", "accumulate"):
        if option in fields:
            option = f"--{option.replace('_', '-')}"
            raise UsageError(f"plan finds --micro-batch and --accumulate itself; leave {option} out")
    budget, gpus, rest = limits.take_budget(rest)
    arms, rest = take_option(rest, "--arm")
    trials, options = matrix.trials(name, arms, rest)
    if others := [axis for axis in option_words.axes(rest) if axis not in SEVERAL]:
        named = " and ".join(f"--{axis.replace('_', '-')}" for axis in SEVERAL)
        raise UsageError(f"plan takes several values of {named} alone, not of --{others[0].replace('_', '-')}")
    if measure and budget.backend == "cuda" and not gpus:
        raise UsageError("--measure needs the GPU that is planned for, and there is none here; plan with --device cpu")
    trials = [dataclasses.replace(trial, memory_limit_bytes=budget.bytes) for trial in trials]
    plans = plan.plans(trials, int(text), budget, recompute="checkpoint_activations" not in fields)
    plan_tables.show_plans(name, int(text), plans, budget)
    path = options.out / "plan.csv"
    plan.write(path, plans)  # now, in case that measuring is interrupted
    code = 0
    if measure:
        chosen = plan.neighbours(plans)
        if not chosen:
            raise UsageError("no plan fits, so there is none to measure; give a larger --memory-limit")
        from launch.sweep import plan_measurement  # takes a while, and a plan alone needs nothing of it

        code = plan_measurement.measure(chosen, options, gpus, fields)
        plan_tables.show_measured(chosen, gpus)
        plan.write(path, plans)
    Console(stderr=True).print(f"details in {path}", highlight=False)
    return code if any(each.chosen for each in plans) else 1
