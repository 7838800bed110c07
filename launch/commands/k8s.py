"""Print a Kubernetes manifest, a JobSet, that runs a study.

The study continues when pods are lost. --processes are nodes x GPUs unless given. --out is a folder of the volume
(/runs/NAME unless given). Instead of EXPERIMENT... it may be a STUDY.toml.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from bench.arguments import Parser
from bench.record.csvfile import write_whole
from launch.cluster import batch_job, k8s

GROUP = "On a cluster"
EXAMPLES = ("resnet20_accumulation --image registry.example/resbench",)


def arguments(parser: Parser) -> None:
    parser.add_argument("-o", dest="file", type=Path, metavar="FILE", help="where to, in place of standard output")
    batch_job.arguments(parser, k8s.Pods, "the JobSet", "/runs/NAME")


def run(options: argparse.Namespace) -> None:
    """Print the manifest, or write it to the file behind -o."""
    pods = batch_job.of(k8s.Pods, options)
    k8s.check_experiments(options.experiment)
    words = batch_job.with_out([*options.experiment, *options.words], options.out or f"/runs/{pods.name}")
    command = batch_job.run_command(words, pods.nodes, pods.gpus_per_node)
    text = yaml.safe_dump(k8s.jobset(pods, command), sort_keys=False, width=120)
    if options.file is None:
        print(text, end="")
    else:
        write_whole(options.file, text)
