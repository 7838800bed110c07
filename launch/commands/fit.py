"""Find the largest micro-batch that runs within a memory limit, by running it.

usage: python -m launch fit EXPERIMENT --memory-limit LIMIT [--reserve BYTES] [--device auto|cpu|cuda]
                  [options of one trial]

--memory-limit, --reserve: see python -m launch run --help

Prints it beside the predicted one, and writes fit.csv into the run folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bench import experiments
from bench.errors import UsageError
from bench.options import take_option
from launch.group import accelerate_command
from launch.memory import limits
from launch.sweep import fit, matrix, option_words


def run(words: Sequence[str]) -> None:
    """Search, print the answer and write fit.csv. Imports torch to predict."""
    name, rest = matrix.one_experiment(words, "fit")
    fields = option_words.fields(rest)
    if "micro_batch" in fields:
        raise UsageError("fit finds --micro-batch itself; leave it out")
    budget, gpus, rest = limits.take_budget(rest)
    arms, rest = take_option(rest, "--arm")
    rest += [] if "accumulate" in fields else ["--accumulate", "1"]
    trials, options = matrix.trials(name, arms or next(iter(experiments.load(name).arms)), rest)
    if len(trials) != 1:
        raise UsageError(f"fit takes one arm and one value each, not {len(trials)} trials; run it once for each")
    trial = dataclasses.replace(trials[0], memory_limit_bytes=budget.bytes)
    accelerate_command.check(trial, gpus)
    answer = fit.largest(trial, dataclasses.replace(options, checkpoint=False), gpus)
    fit.show(answer, budget)
    fit.write(options.out / "fit.csv", answer)
