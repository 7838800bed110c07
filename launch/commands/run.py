"""Run experiments or a study, each trial in processes of its own.

Instead of EXPERIMENT... it may be a STUDY.toml, whose keys are the options below; those of the command line replace
them. `run EXPERIMENT --help` shows what that experiment asks and sets.

Exit code 0: all trials ended well; 1: some did not; 2: the request cannot be met; 70: an error that nobody foresaw,
whose traceback is in the file that is named; 130: interrupted.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess

from bench.arguments import Parser
from bench.called import module_command
from bench.errors import INTERRUPTED
from bench.terminal import say
from bench.variables import TURNS
from launch.interrupts import NOTHING_STARTED, before_any_trial
from launch.memory import limits
from launch.sweep import checks, dry_run, runner, study_folder
from launch.sweep import request as requests
from launch.sweep.request import RunRequest

GROUP = "Run experiments"
EXAMPLES = ("resnet20_accumulation --preset mini", "resnet20_accumulation --arm 16x8 --precision no,bf16")


def arguments(parser: Parser) -> None:
    requests.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Run the trials and show their table."""
    with before_any_trial():
        request = requests.read([*options.experiment, *options.words])
        checks.check(request)
        out = request.options.out
        rows = len(study_folder.read_rows(out))
    first = request.run_options.machine_rank == 0 and TURNS not in os.environ  # of a gate, each launch comes here
    if request.note and first:
        say(request.note)
    if request.run_options.dry_run:
        study_folder.check_folder(out, request)
        dry_run.show(request)
        return 0
    code = run_trials(request)
    if code == INTERRUPTED and first:
        again = "the same command" if request.options.resume else "the same command with --resume"
        began = len(study_folder.read_rows(out)) > rows  # a trial that was started has its row
        say(f"interrupted: {again} goes on" if began else NOTHING_STARTED)
    # In a gate nobody reads the table, and it would take as long as a short launch.
    if first and study_folder.read_rows(out):
        subprocess.run(module_command("reports", "show", str(out)), check=False)
    return code


def run_trials(request: RunRequest) -> int:
    """Run what `checks.check` has passed; returns the exit code."""
    out = request.options.out
    study_folder.check_folder(out, request)

    def prepare() -> None:
        study_folder.check_folder(out, request)  # again: only now is the folder locked
        if request.study is not None:
            study_folder.keep(out, request.study)

    over_limit = functools.partial(limits.over_limit, gpus=request.gpus) if request.skip_over_limit else runner.never
    return runner.run_all(
        request.trials, request.options, request.run_options, request.gpus, request.axes, over_limit, prepare
    )
