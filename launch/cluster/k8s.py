"""A Kubernetes JobSet that runs a study, and continues it when pods are lost.

A JobSet (https://jobset.sigs.k8s.io, v1alpha2) restarts all machines of a study together, as a process group needs, and
gives each a host name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from bench import own_file
from bench.errors import UsageError
from launch.cluster import batch_job

TEMPLATE = Path(__file__).with_name("jobset.yaml")
PORT = 29500
# A DNS label that starts with a letter (RFC 1035): JobSet makes host names of it.
LABEL = r"[a-z]([a-z0-9-]*[a-z0-9])?"
# Characters that a host name may have with the suffix that Kubernetes adds for each pod.
LONGEST = 63


@dataclass(frozen=True)
class Pods:
    """The options for Kubernetes."""

    image: str
    """A container image with the checkout as its working directory and the dependencies in its `python`."""
    nodes: int = 1
    """Machines, a pod on each."""
    gpus_per_node: int = 0
    """GPUs of each pod; 0: the trials run on CPUs."""
    name: str = "resbench"
    """Name of the JobSet."""
    namespace: str | None = None
    """Namespace of the JobSet (default: the cluster's current one)."""
    volume_claim: str | None = None
    """Claim of the volume with the run folders, which all pods write to (default: the one named as the JobSet)."""

    def __post_init__(self) -> None:
        batch_job.at_least(self, nodes=1, gpus_per_node=0)
        if not self.image:
            raise UsageError("k8s needs --image, a container image with the checkout as its working directory")
        batch_job.spelled(
            self,
            image=(r"[A-Za-z0-9][A-Za-z0-9_./:@-]*", "registry.example/resbench:0.1"),
            name=(LABEL, "resbench (small letters, digits, -)"),
            namespace=(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "training"),
            volume_claim=(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "runs"),
        )
        if len(f"{self.host(self.nodes - 1)}-abcde") > LONGEST:
            raise UsageError(f"--name is {self.name!r}, too long for names of pods; give a shorter one")

    def host(self, rank: int) -> str:
        """A machine's host name, as JobSet composes it."""
        return f"{self.name}-machine-0-{rank}"


def jobset(pods: Pods, command: batch_job.RunCommand) -> dict[str, Any]:
    """The manifest. Raises UsageError if --out is in no folder that the volume can be mounted at."""
    manifest: dict[str, Any] = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    (machines,) = manifest["spec"]["replicatedJobs"]
    job = machines["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    manifest["metadata"]["name"] = manifest["spec"]["network"]["subdomain"] = pods.name
    if pods.namespace:
        manifest["metadata"]["namespace"] = pods.namespace
    job["completions"] = job["parallelism"] = pods.nodes
    container["image"] = pods.image
    # Kubernetes expands $(NAME) in a command; $$ stands for a plain $.
    container["command"] += [word.replace("$", "$$") for word in command.words]
    container["volumeMounts"][0]["mountPath"] = mounted(command.options.out)
    pod["volumes"][0]["persistentVolumeClaim"]["claimName"] = pods.volume_claim or pods.name
    container["resources"]["limits"]["nvidia.com/gpu"] = pods.gpus_per_node
    if not pods.gpus_per_node:
        del container["resources"]
    if pods.nodes == 1:
        del pod["affinity"]
    else:
        del job["podFailurePolicy"]
        rendezvous = f"{pods.host(0)}.{pods.name}:{PORT}"
        container["command"] += ["--machine-rank", "$(JOB_COMPLETION_INDEX)", "--rendezvous", rendezvous]
        (apart,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        apart["labelSelector"]["matchLabels"]["jobset.sigs.k8s.io/jobset-name"] = pods.name
    return manifest


def mounted(out: Path) -> str:
    """Where the volume is mounted: the folder that holds the run folder. Raises UsageError if that is impossible."""
    path = PurePosixPath(out)
    if not path.is_absolute() or len(path.parts) < 3 or ".." in path.parts or ":" in str(path):
        raise UsageError(f"--out is {str(out)!r}; give a folder of the volume as pods see it, such as /runs/mine")
    return str(path.parent)


def check_experiments(names: Sequence[str]) -> None:
    """Raises UsageError for a relative path of a user's own experiment, which would become one of this machine."""
    for word in names:
        (found,) = own_file.absolute([word])
        if own_file.is_path(found) and not os.path.isabs(word):
            raise UsageError(f"k8s has {word!r}, a path on this machine; give the absolute path that the pods have too")
