"""Print a Kubernetes manifest (a JobSet) that runs a study, and continues it when pods are lost.

usage: python -m launch k8s EXPERIMENT... --image IMAGE [--nodes N] [--gpus-per-node N] [--name NAME] [--namespace NS]
                  [--volume-claim PVC] [-o FILE] [options as of run]

--image         a container image with the checkout as its working directory and the dependencies in its `python`
--volume-claim  the claim of the volume that holds run folders (one named as the JobSet); all pods write to it
--processes are nodes x GPUs unless given. --out is a folder of the volume (/runs/NAME).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from bench.options import take_option
from bench.record.csvfile import write_whole
from launch.cluster import batch_job, k8s


def run(words: Sequence[str]) -> None:
    """Print the manifest, or write it to the file behind -o."""
    file, rest = take_option(words, "-o")
    pods, rest = batch_job.take(k8s.Pods, rest)
    k8s.check_experiments(rest)
    out, _ = take_option(rest, "--out")
    rest = list(batch_job.with_out(rest, out or f"/runs/{pods.name}"))
    command = batch_job.run_command(rest, pods.nodes, pods.gpus_per_node)
    text = yaml.safe_dump(k8s.jobset(pods, command), sort_keys=False, width=120)
    if file is None:
        print(text, end="")
    else:
        write_whole(Path(file), text)
