"""The manifest for Kubernetes, held against the published models of JobSet, Job and Pod; no cluster is needed."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from conftest import CHECKOUT
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet
from launching import is_one_error, python

from bench.errors import UsageError
from launch.cluster import k8s

STUDY = ["resnet20_accumulation", "--arm", "16x1"]
TWO = ["--nodes", "2", "--gpus-per-node", "8", "--image", "registry.example/resbench:0.1"]
# Their keys are the user's, not the schema's.
FREE = ("matchLabels", "limits")


def manifest(*words: str) -> dict[str, Any]:
    done = python("-m", "launch", "k8s", *words)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def pod(jobset: dict[str, Any]) -> dict[str, Any]:
    (machine,) = jobset["spec"]["replicatedJobs"]
    return machine["template"]["spec"]["template"]["spec"]


def command(jobset: dict[str, Any]) -> list[str]:
    (container,) = pod(jobset)["containers"]
    return container["command"]


def after(words: list[str], option: str) -> str:
    assert words.count(option) == 1
    return words[words.index(option) + 1]


def is_as_published(jobset: dict[str, Any]) -> bool:
    """Whether the models take all of it: they refuse wrong types, and silently leave out fields that do not exist."""
    try:
        taken = JobsetV1alpha2JobSet.from_dict(copy.deepcopy(jobset))
    except pydantic.ValidationError:
        return False
    return taken is not None and taken.to_dict() == jobset


def keys(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every field of the schema."""
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, value in items:
        if isinstance(part, dict):
            yield (*path, key)
        if key not in FREE:
            yield from keys(value, (*path, key))


@pytest.mark.parametrize("words", [TWO, ["--image", "a", "--volume-claim", "runs", "--namespace", "training"]])
def test_the_manifest_is_what_the_published_models_take(words: list[str]) -> None:
    assert is_as_published(manifest(*STUDY, *words))


@pytest.mark.parametrize("words", [[*TWO, "--namespace", "training"], ["--image", "a"]])
def test_any_misspelt_field_would_be_found(words: list[str]) -> None:
    jobset = manifest(*STUDY, *words)
    paths = list(keys(jobset))
    assert {"failurePolicy", "completionMode", "mountPath", "claimName"} <= {path[-1] for path in paths}
    for *above, key in paths:
        wrong = copy.deepcopy(jobset)
        part: Any = wrong
        for step in above:
            part = part[step]
        part[f"{key}x"] = part.pop(key)
        assert not is_as_published(wrong), (*above, key)


def test_every_machine_runs_the_same_study_and_learns_its_own_number() -> None:
    jobset = manifest(*STUDY, *TWO, "--name", "study-1", "--out", "/runs/mine")
    words = command(jobset)
    assert words[:7] == ["python", "-m", "launch", "run", *STUDY]
    assert (after(words, "--machines"), after(words, "--processes")) == ("2", "16")
    assert (after(words, "--device"), after(words, "--out")) == ("cuda", "/runs/mine")
    assert "--resume" in words
    assert after(words, "--machine-rank") == "$(JOB_COMPLETION_INDEX)"
    # <jobset>-<replicated job>-<job index>-<pod index>.<subdomain>, as JobSet names pods.
    (machine,) = jobset["spec"]["replicatedJobs"]
    host = f"{jobset['metadata']['name']}-{machine['name']}-0-0.{jobset['spec']['network']['subdomain']}"
    assert re.fullmatch(rf"{re.escape(host)}:\d+", after(words, "--rendezvous"))
    job = machine["template"]["spec"]
    assert (machine["replicas"], job["completionMode"]) == (1, "Indexed")
    assert job["completions"] == job["parallelism"] == 2


def test_two_machines_are_two_nodes() -> None:
    (rule,) = pod(manifest(*STUDY, *TWO))["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    assert rule["labelSelector"]["matchLabels"] == {"jobset.sigs.k8s.io/jobset-name": "resbench"}


def test_one_machine_meets_no_other_and_without_gpus_uses_the_cpu() -> None:
    jobset = manifest(*STUDY, "--image", "a", "--processes", "2")
    words = command(jobset)
    assert not {"--machines", "--machine-rank", "--rendezvous"} & set(words)
    assert (after(words, "--processes"), after(words, "--device")) == ("2", "cpu")
    assert "resources" not in pod(jobset)["containers"][0]


def test_a_pod_has_the_volume_shared_memory_and_gpus() -> None:
    spec = pod(manifest(*STUDY, *TWO, "--out", "/data/runs/mine", "--volume-claim", "claim"))
    (container,) = spec["containers"]
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert places == {"runs": "/data/runs", "shm": "/dev/shm"}
    volumes = {volume.pop("name"): volume for volume in spec["volumes"]}
    assert volumes == {
        "runs": {"persistentVolumeClaim": {"claimName": "claim"}},
        "shm": {"emptyDir": {"medium": "Memory"}},
    }
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}


@pytest.mark.parametrize("nodes", [1, 2])
def test_lost_pods_restart_all_machines_and_failed_trials_alone_none(nodes: int) -> None:
    """Of several machines, one that has lost another may end as if a trial had failed."""
    spec = manifest(*STUDY, "--image", "a", "--processes", "2", "--nodes", str(nodes))["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")
    assert spec["failurePolicy"]["maxRestarts"] > 0
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert ("podFailurePolicy" in job) == (nodes == 1)
    if nodes == 1:
        (rule,) = job["podFailurePolicy"]["rules"]
        assert (rule["action"], rule["onExitCodes"]["operator"]) == ("FailJob", "In")
        assert rule["onExitCodes"]["values"] == [1, 2]


def test_odd_words_arrive_as_they_are(tmp_path: Path) -> None:
    """In YAML as in what Kubernetes makes of a $, where $$ is one and $(NAME) a variable."""
    odd = '/runs/it\'s: {a} "b" #1 $(HOME) $$ é'
    file = tmp_path / "jobset.yaml"
    done = python("-m", "launch", "k8s", *STUDY, *TWO, "--out", odd.replace(":", ""), "-o", str(file))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    written = after(command(yaml.safe_load(file.read_text())), "--out")
    assert re.findall(r"(?<!\$)(?:\$\$)*\$(?!\$)", written) == []
    assert written.replace("$$", "$") == odd.replace(":", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (STUDY, "--image"),
        ([*STUDY, "--image", "a b"], "'a b'"),
        ([*STUDY, *TWO, "--name", "My_Study"], "'My_Study'"),
        ([*STUDY, *TWO, "--name", "1st"], "'1st'"),
        ([*STUDY, *TWO, "--name", "n" * 46], "too long"),
        ([*STUDY, *TWO, "--namespace", "a.b"], "'a.b'"),
        ([*STUDY, *TWO, "--volume-claim", "a_b"], "'a_b'"),
        ([*STUDY, *TWO, "--out", "runs/mine"], "'runs/mine'"),
        ([*STUDY, *TWO, "--out", "/mine"], "'/mine'"),
        ([*STUDY, *TWO, "--machine-rank", "1"], "--machine-rank"),
        ([*STUDY, *TWO, "--micro", "1"], "--micro-batch"),
        (["resnt", *TWO], "'resnt'"),
    ],
)
def test_a_wrong_word_is_named_and_nothing_is_written(words: list[str], said: str, tmp_path: Path) -> None:
    done = python("-m", "launch", "k8s", *words, "-o", str(tmp_path / "jobset.yaml"))
    assert is_one_error(done), done.stderr
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_ones_own_has_the_path_that_pods_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    k8s.check_experiments(["dropout", "/shared/mine.py", "bench/experiments/dropout.py", "s.toml"])
    with pytest.raises(UsageError, match=r"k8s has '\./mine\.py', a path on this machine; give the absolute path"):
        k8s.check_experiments(["./mine.py"])


def test_the_longest_name_that_is_taken_leaves_room_for_a_pods() -> None:
    jobset = manifest(*STUDY, *TWO, "--name", "n" * 45)
    (machine,) = jobset["spec"]["replicatedJobs"]
    assert len(f"{jobset['metadata']['name']}-{machine['name']}-0-1-abcde") == 63
