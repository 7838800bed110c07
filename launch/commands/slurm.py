"""Write a batch script that runs a study under Slurm.

The script is RUN_FOLDER/slurm.sh. Submit it with sbatch, or at once with --submit, which prints the job's id. The job
continues after its time limit. --processes are nodes x GPUs unless given. Instead of EXPERIMENT... it may be a
STUDY.toml.
"""

from __future__ import annotations

import argparse
import shutil

from bench.arguments import Parser
from bench.errors import UsageError
from launch.cluster import batch_job, slurm

GROUP = "On a cluster"
EXAMPLES = ("resnet20_accumulation --nodes 2 --gpus-per-node 4",)


def arguments(parser: Parser) -> None:
    parser.add_argument("--submit", action="store_true", help="submit the script, and print the job's id")
    batch_job.arguments(parser, slurm.Batch, "the job")


def run(options: argparse.Namespace) -> None:
    """Write the script and say where; with --submit, submit it and print the job's id."""
    batch = batch_job.of(slurm.Batch, options)
    if options.submit and not shutil.which("sbatch"):
        raise UsageError("--submit needs Slurm's sbatch, and there is none on PATH; run this on a login node")
    path = slurm.write(
        batch, batch_job.run_command([*options.experiment, *options.words], batch.nodes, batch.gpus_per_node)
    )
    print(path)
    if options.submit:
        print(slurm.submit(path))
