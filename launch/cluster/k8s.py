"""A Kubernetes JobSet that runs a study, and continues it when pods are lost.

A JobSet (https://jobset.sigs.k8s.io, v1alpha2) restarts all machines of a study together, which is what a process group
needs, and gives each a name that the others find.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bench.errors import UsageError
from launch.cluster import batch_job

# Names of the replicated job and of its container.
MACHINE, TRIAL = "machine", "trial"
PORT = 29500
# Times that pods may be lost before a person should look.
RESTARTS = 10
# A label in DNS that starts with a letter (RFC 1035), as JobSet makes host names of it.
LABEL = r"[a-z]([a-z0-9-]*[a-z0-9])?"
# A host name and, behind it, what Kubernetes adds to tell pods apart, may have so many characters.
LONGEST = 63


@dataclass(frozen=True)
class Pods:
    """The options that are Kubernetes'."""

    image: str = ""
    """Has the checkout as its working directory, and as `python` one with the suite's dependencies."""
    nodes: int = 1
    gpus_per_node: int = 0
    name: str = "resbench"
    namespace: str | None = None
    volume_claim: str | None = None
    """The claim of the volume that run folders are on, for all pods to write to. None: one of the JobSet's name."""

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
        """The host name that JobSet gives a machine."""
        return f"{self.name}-{MACHINE}-0-{rank}"

    def claim(self) -> str:
        """The name of the claim."""
        return self.volume_claim or self.name


def jobset(pods: Pods, study: batch_job.Study) -> dict[str, Any]:
    """The manifest. UsageError: there is no place in a pod for the run folder."""
    metadata = {"name": pods.name} | ({"namespace": pods.namespace} if pods.namespace else {})
    machine = {"name": MACHINE, "replicas": 1, "template": {"spec": job(pods, study)}}
    given_up = {"name": "given_up", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True, "subdomain": pods.name},
            "failurePolicy": {"maxRestarts": RESTARTS, "rules": [given_up]},
            "replicatedJobs": [machine],
        },
    }


def job(pods: Pods, study: batch_job.Study) -> dict[str, Any]:
    """An Indexed Job of one pod a machine, which fails with its first pod.

    Of one machine, exit codes 1, a trial failed and has its row, and 2, the request cannot be met, would be the same
    again: no restart. Of several, they can also mean that another machine is gone.
    """
    said = {"containerName": TRIAL, "operator": "In", "values": [1, 2]}
    given_up = {"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": said}]}}
    return {
        "completionMode": "Indexed",
        "completions": pods.nodes,
        "parallelism": pods.nodes,
        "backoffLimit": 0,
        **(given_up if pods.nodes == 1 else {}),
        "template": {"spec": pod(pods, study)},
    }


def pod(pods: Pods, study: batch_job.Study) -> dict[str, Any]:
    """One machine."""
    volume = mounted(study.options.out)
    container: dict[str, Any] = {
        "name": TRIAL,
        "image": pods.image,
        # $( starts a reference to a variable here, and $$ is a plain $.
        "command": [word.replace("$", "$$") for word in ("python", "-m", "launch", "run", *study.words)],
        "volumeMounts": [{"name": "runs", "mountPath": volume}, {"name": "shm", "mountPath": "/dev/shm"}],
    }
    if pods.gpus_per_node:
        container["resources"] = {"limits": {"nvidia.com/gpu": pods.gpus_per_node}}
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [
            {"name": "runs", "persistentVolumeClaim": {"claimName": pods.claim()}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},  # DataLoader workers and NCCL need more than 64 MiB
        ],
    }
    if pods.nodes > 1:
        rendezvous = f"{pods.host(0)}.{pods.name}:{PORT}"
        container["command"] += ["--machine-rank", "$(JOB_COMPLETION_INDEX)", "--rendezvous", rendezvous]
        spec["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart(pods)]}}
    return spec


def apart(pods: Pods) -> dict[str, Any]:
    """No two of these pods on one node: --machines counts nodes."""
    ours = {"matchLabels": {"jobset.sigs.k8s.io/jobset-name": pods.name}}
    return {"labelSelector": ours, "topologyKey": "kubernetes.io/hostname"}


def mounted(out: Path) -> str:
    """Where the volume goes: the folder that holds the run folder. UsageError: not there."""
    path = PurePosixPath(out)
    if not path.is_absolute() or len(path.parts) < 3 or ".." in path.parts or ":" in str(path):
        raise UsageError(f"--out is {str(out)!r}; give a folder of the volume as pods see it, such as /runs/mine")
    return str(path.parent)
