"""The command that starts a trial: the same trial arrives at the other end, on the devices that are there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from launching import is_one_error, python, two_gpus

from bench import experiments
from bench.cli import own_options, read_request
from bench.options import Options
from bench.trial import Trial
from launch.group import accelerate_command
from launch.group.run_context import run_context
from launch.run_options import RunOptions

ARMS = [(name, arm) for name in experiments.names() for arm in experiments.load(name).arms]
FIRST = {(name, next(iter(experiments.load(name).arms))) for name in experiments.names()}
EACH = {"features": "each_epoch"}  # what an arm with features once needs to have these settings
UNLIKE: list[dict[str, Any]] = [
    {},
    {**EACH, "replace_blocks": (), "milestones": (), "trainable": ("all",), "classes": (3, 1)},
    {**EACH, "limit_train": 100, "limit_eval": None, "lr_batch": 512, "compile": "max-autotune", "replaced_skip": True},
    {"weights": "/a folder/of weights.pt", "lr": 1e-05, "warmup": 0.1, "seed": 2**40},
    {"data": "synthetic"},
    {"head": (512, 128), "dropout": (0.3,), "batch_norm": "eval", "optimizer_holds": "another_model"},
    {"processes": 2},  # with the micro-batch of one process, which an arm of a shared batch has only by request
    {"bucket_mib": 0.1, "gradient_compression": "bf16", "processes": 2, "micro_batch": 3},
    {**EACH, "processes": 4, "precision": "bf16", "micro_batch": 1, "repeat": 7, "pipeline": "loader", "workers": 0},
]

# The first arm of each experiment has all of them, another the first two and one more.
ASKED = [
    (name, arm, changes)
    for number, (name, arm) in enumerate(ARMS)
    for changes in (UNLIKE if (name, arm) in FIRST else [*UNLIKE[:2], UNLIKE[2 + number % (len(UNLIKE) - 2)]])
]


@pytest.mark.parametrize(
    ("name", "arm", "changes"),
    ASKED,
    ids=lambda part: part if isinstance(part, str) else " ".join(part) or "as it stands",
)
def test_the_worker_reads_the_trial_that_was_asked_for(name: str, arm: str, changes: dict[str, Any]) -> None:
    experiment = experiments.load(name)
    trial = dataclasses.replace(experiment.trial(name, arm), **changes)
    options = Options(out=Path("a folder/x,y"), data_root=Path("/data"), resume=True, checkpoint=False, trace=True)
    _, words = accelerate_command.accelerate_command(trial, options, gpus=0)
    words = words[words.index(f"bench.experiments.{name}") + 1 :]
    own, rest = own_options(name, words)
    request = read_request(name, experiment, own.arm, rest)
    assert (request.trial, request.options) == (trial, options)


def test_one_trial_in_two_processes_is_a_connected_group_and_on_the_cpu_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    trial = Trial(experiment="resnet20_accumulation", arm="16x8", processes=2, precision="bf16")
    variables, words = accelerate_command.accelerate_command(trial, Options(), gpus=0)
    assert variables == {"ACCELERATE_USE_CPU": "true"}
    assert "--multi_gpu" in words
    assert words[words.index("--num_processes") + 1] == "2"
    assert words[words.index("--mixed_precision") + 1] == "bf16"
    variables, words = accelerate_command.accelerate_command(trial, Options(), gpus=2)
    assert variables == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert accelerate_command.accelerate_command(trial, Options(), gpus=2)[0] == {}
    assert "--cpu" not in words


def test_what_is_inherited_puts_no_trial_into_another_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left by a cluster, by mpirun, by torchrun, or by accelerate launch, they would."""
    group = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "far.away"}
    group |= {"MASTER_PORT": "1", "NODE_RANK": "1", "GROUP_RANK": "1", "PET_NNODES": "4", "PMI_RANK": "1"}
    group |= {"OMPI_COMM_WORLD_RANK": "1", "TORCHELASTIC_RUN_ID": "x", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "8"}
    kept = {
        "HOME": "/home/x",
        "CUDA_VISIBLE_DEVICES": "1",
        "OMP_NUM_THREADS": "1",
        "NCCL_DEBUG": "INFO",
        "RANKING": "1",
    }
    for name, value in (group | kept).items():
        monkeypatch.setenv(name, value)
    inherited = accelerate_command.inherited()
    assert set(group) & set(inherited) == set()
    assert kept.items() <= inherited.items()


@pytest.mark.parametrize(
    ("accelerate", "way"),
    [("1.2.1", "cold"), ("1.9.0", "cold"), ("1.13.0", "cold"), ("1.14.0", "warm"), ("2.0.0", "warm")],
)
def test_an_accelerate_that_touches_cuda_before_it_forks_forks_nothing_on_gpus(
    accelerate: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = tmp_path / "packages" / f"accelerate-{accelerate}.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: accelerate\nVersion: {accelerate}\n")
    monkeypatch.syspath_prepend(facts.parent)
    assert [starter(gpus, tmp_path / "runs") for gpus in (2, 0)] == [way, "warm"]


def starter(gpus: int, out: Path) -> str:
    """What starts trials in this process, where there are so many GPUs."""
    with run_context(Options(out=out), gpus, RunOptions()) as given:
        return given.starter.name


COUNTS = """
import json, os, sys
from launch.group.accelerate_command import gpu_count
for visible in json.loads(sys.argv[1]):
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    os.environ |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    print(gpu_count())
"""


def counts(env: dict[str, str | None], *visible: str | None) -> list[int]:
    """The GPUs that a process with these variables finds; one after the other with each CUDA_VISIBLE_DEVICES."""
    done = python("-c", COUNTS, json.dumps(visible or (None,)), env=env)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.splitlines()]


def test_gpus_are_counted_as_far_as_they_are_visible(standin_nvml: Path) -> None:
    expected = {
        None: 2,
        "": 0,
        "-1": 0,
        "0": 1,
        "1": 1,
        "0,1": 2,
        " 1, 0 ": 2,
        # As CUDA has it: what follows a name that it does not know is not seen.
        "0,7": 1,
        "7,0": 0,
        "0,-1,1": 1,
        "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6": 1,
    }
    assert dict(zip(expected, counts(two_gpus(standin_nvml), *expected), strict=True)) == expected


@pytest.mark.parametrize("behaviour", ["0", "refuses", "jetson"])
def test_without_an_answer_there_are_no_gpus(standin_nvml: Path, behaviour: str) -> None:
    assert counts(two_gpus(standin_nvml, STANDIN_NVML=behaviour)) == [0]


def test_who_asks_for_the_cpu_gets_it(standin_nvml: Path) -> None:
    assert counts(two_gpus(standin_nvml, ACCELERATE_USE_CPU="true")) == [0]
    assert counts(two_gpus(standin_nvml, ACCELERATE_USE_CPU="false")) == [2]


def test_three_processes_on_two_gpus_are_refused_before_anything_is_started(standin_nvml: Path, tmp_path: Path) -> None:
    words = ["run", "resnet20_accumulation", "--processes", "1,3", "--out", str(tmp_path / "runs")]
    done = python("-m", "launch", *words, env=two_gpus(standin_nvml))
    assert is_one_error(done), done.stderr
    assert "--processes is 3" in done.stderr
    assert "2 GPU" in done.stderr
    assert not (tmp_path / "runs").exists()
