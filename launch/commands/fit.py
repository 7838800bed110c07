"""Find by running the largest micro-batch within a memory limit.

Prints it beside the predicted one, and writes fit.csv into the run folder. Each setting has one value; without --arm,
the first arm is taken.
"""

from __future__ import annotations

import argparse
import dataclasses

from bench import experiments
from bench.arguments import Parser
from bench.errors import UsageError
from launch.group import accelerate_command
from launch.memory import limits
from launch.sweep import arguments as declared
from launch.sweep import fit, matrix, option_words

GROUP = "What fits"
EXAMPLES = ("resnet20_accumulation --arm 16x8 --memory-limit 600MiB",)


def arguments(parser: Parser) -> None:
    declared.experiments_argument(parser, several=False)
    declared.one_trial(parser)


def run(options: argparse.Namespace) -> None:
    """Search, print the answer and write fit.csv. Imports torch to predict."""
    if "micro_batch" in options.given:
        raise UsageError("fit finds --micro-batch itself; leave it out")
    gpus = limits.gpus(options.device)
    budget = limits.budget(options, gpus)
    words = option_words.without(options.words, option_words.OTHERS)
    words += [] if "accumulate" in options.given else ["--accumulate", "1"]
    arm = options.arm or next(iter(experiments.load(options.experiment).arms))
    trials, launch = matrix.trials(options.experiment, arm, words, options.preset)
    if len(trials) != 1:
        raise UsageError(f"fit takes one arm and one value each, not {len(trials)} trials; run it once for each")
    trial = dataclasses.replace(trials[0], memory_limit_bytes=budget.bytes)
    accelerate_command.check(trial, gpus)
    answer = fit.largest(trial, dataclasses.replace(launch, checkpoint=False), gpus)
    fit.show(answer, budget)
    fit.write(launch.out / "fit.csv", answer)
