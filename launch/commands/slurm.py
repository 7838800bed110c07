"""Write a batch script that runs a study under Slurm, and continues it after the time limit.

usage: python -m launch slurm EXPERIMENT... [--nodes N] [--gpus-per-node N] [--cpus-per-task N] [--partition P]
                  [--time T] [--job-name J] [--submit] [options as of run]

The script is RUN_FOLDER/slurm.sh. Submit it with sbatch, or at once with --submit, which prints the job's id.
--processes are nodes x GPUs unless given.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from bench.errors import UsageError
from launch.cluster import batch_job, slurm
from launch.memory import limits


def run(words: Sequence[str]) -> None:
    """Write the script and say where; with --submit, submit it and print the job's id."""
    submit, rest = limits.take_flag(words, "--submit")
    batch, rest = batch_job.take(slurm.Batch, rest)
    if submit and not shutil.which("sbatch"):
        raise UsageError("--submit needs Slurm's sbatch, and there is none on PATH; run this on a login node")
    path = slurm.write(batch, batch_job.run_command(rest, batch.nodes, batch.gpus_per_node))
    print(path)
    if submit:
        print(slurm.submit(path))
