"""Run the arms of experiments, or a study, each trial in a process group of its own.

usage: python -m launch run EXPERIMENT... [--arm A,B] [--preset full|mini] [--FIELD VALUE[,VALUE...]] [--out RUN_FOLDER]
                  [--repeats N [--order interleaved|sequential]] [--dry-run] [--timeout S] [--stall-timeout S]
                  [--resume [--retry-failed]] [--fail-fast] [--parallel N] [--cold]
                  [--machines M --machine-rank R --rendezvous HOST:PORT]
                  [--device auto|cpu|cuda] [--memory-limit LIMIT[,LIMIT...] [--reserve BYTES] [--skip-over-limit]]
       python -m launch run STUDY.toml [options as above, which replace the file's]
       python -m launch run EXPERIMENT --help   explains every option, with the experiment's own settings

An EXPERIMENT is a name of python -m launch list, or the path of a file of your own, such as ./my_study.py, that holds
what the files in bench/experiments/ hold; with its own model and data if it defines model(trial, classes), data(trial).

--preset mini      the miniature of each arm (digits, small images, minutes on two CPUs), to try out a study; of all
                   experiments if none is named; other options override it
--repeats N        run each trial N times; interleaved: all trials once, then all once more in reverse order
--dry-run          print the trials, their commands and the time they may take; start nothing
--resume           skip the trials that have a row, unless they were interrupted; with --retry-failed, skip only those
                   that ended well
--memory-limit     what the tensors of one process may take: bytes such as 600MiB, a device such as orin-nano-8gb, or
                   auto (what is free here); each of several values is a run of its own
--reserve          bytes to subtract from the limit, in place of the device's own reserve
--skip-over-limit  do not start a trial that is predicted not to fit

Exit code 0: all trials ended well; 1: some did not; 2: the request cannot be met; 70: an error that nobody foresaw,
whose traceback is in the file that is named; 130: interrupted.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Sequence

from bench.entry import module_command
from bench.variables import TURNS
from launch.memory import limits
from launch.sweep import checks, dry_run, runner, study_folder
from launch.sweep.request import RunRequest, read

OWN_HELP = True  # behind an experiment, --help lists the settings of that experiment


def run(words: Sequence[str]) -> int:
    """Run the trials and show their table."""
    if set(words[:1]) & {"-h", "--help"}:
        print(__doc__.rstrip())
        return 0
    request = read(words)
    out = request.options.out
    if request.run_options.dry_run:
        checks.check(request)
        study_folder.check_folder(out, request)
        dry_run.show(request)
        return 0
    code = run_trials(request)
    # In a gate nobody reads the table, and it would take as long as a short launch.
    if request.run_options.machine_rank == 0 and TURNS not in os.environ and (out / "trials.csv").exists():
        subprocess.run(module_command("reports", "show", str(out)), check=False)
    return code


def run_trials(request: RunRequest) -> int:
    """Run what is asked for; returns the exit code."""
    out = request.options.out
    checks.check(request)
    study_folder.check_folder(out, request)

    def prepare() -> None:
        study_folder.check_folder(out, request)  # again: only now is the folder locked
        if request.study is not None:
            study_folder.keep(out, request.study)

    over_limit = functools.partial(limits.over_limit, gpus=request.gpus) if request.skip_over_limit else runner.never
    return runner.run_all(
        request.trials, request.options, request.run_options, request.gpus, request.axes, over_limit, prepare
    )
