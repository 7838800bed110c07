"""The group: it is the one asked for, and trains as the trial says, whatever Accelerate was told besides."""

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
from conftest import CHECKOUT
from launching import SMALL, is_one_error, python, rows
from standin_cuda.standin import Standin

from bench.machine.environment import cpu_count
from bench.options import Options
from bench.training import setup
from bench.variables import LAUNCH_ID, STORE


@pytest.mark.parametrize(("asked", "formed"), [(2, 1), (3, 2), (1, 2)])
def test_another_number_of_processes_than_asked_for_is_refused(asked: int, formed: int, tmp_path: Path) -> None:
    ran = planted.run(tmp_path, planted.settings(processes=asked), planted.smooth, planted.noise, processes=formed)
    assert f"--processes is {asked} but {formed} formed a group" in planted.refused(ran)
    assert not (tmp_path / "trials.csv").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the processes do form a group")
def test_two_processes_that_formed_no_group_do_not_both_train(tmp_path: Path) -> None:
    """What accelerate launch --multi_gpu starts on a machine without a GPU."""
    trial = planted.settings(processes=2)
    ran = planted.run(tmp_path, trial, planted.smooth, planted.noise, ACCELERATE_USE_CPU="false")
    assert "processes" in planted.refused(ran)
    assert not (tmp_path / "trials.csv").exists()


def test_gpus_that_torch_cannot_use_are_no_reason_to_train_on_the_cpu(standin_cuda: Standin, tmp_path: Path) -> None:
    """A driver older than the CUDA that torch was built for: NVML sees the GPUs, torch has none."""
    out = str(tmp_path / "runs")
    env = standin_cuda.variables(gpus=2, STANDIN_CUDA_DRIVER="11040")
    trial = ["resnet20_accumulation", "--arm", "16x1", *SMALL, "--epochs", "1", "--no-checkpoint", "--out", out]
    by_hand = python("-m", f"bench.experiments.{trial[0]}", *trial[1:], env=env)
    assert is_one_error(by_hand), by_hand.stderr
    said = by_hand.stderr.removeprefix("error: ").strip()
    assert f"has 2 GPU(s) but torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use them: " in said
    assert "driver on your system is too old (found version 11040)" in said
    assert said.endswith("; fix that, or set ACCELERATE_USE_CPU=true to use the CPU")
    launched = python("-m", "launch", "run", *trial, env=env)
    assert launched.returncode == 2, launched.stderr
    row = rows(tmp_path / "runs", "trials")[-1]
    assert (row["status"], row["images_seen"]) == ("crashed", "")
    assert row["error"].startswith(said)


def test_a_device_that_is_neither_cuda_nor_the_cpu_is_refused(tmp_path: Path) -> None:
    """Which Accelerate chooses by itself where it finds a GPU of Intel's, or of Apple's."""
    ran = planted.run(tmp_path, planted.settings(), planted.smooth, planted.noise, ACCELERATE_TORCH_DEVICE="meta")
    assert "Accelerate chose the device meta, but the suite measures CUDA devices" in planted.refused(ran)
    assert not (tmp_path / "trials.csv").exists()


NVIDIA_SMI = """#!/bin/sh
echo "$1" >> "$(dirname "$0")/asked"
case "$1" in *driver*) echo 525.60.13;; *) printf '2, NVIDIA GeForce RTX 4090\\n2, NVIDIA GeForce RTX 4090\\n';; esac
"""


def test_nvidia_smi_is_asked_once_by_the_launcher_and_by_no_rank(standin_cuda: Standin, tmp_path: Path) -> None:
    """On GPUs whose peer-to-peer does not work with so old a driver, which Accelerate's launcher then switches off."""
    script = tmp_path / "nvidia-smi"
    script.write_text(NVIDIA_SMI)
    script.chmod(0o755)
    out = tmp_path / "runs"
    words = ["resnet20_accumulation", "--arm", "16x1", *SMALL, "--epochs", "1", "--no-checkpoint", "--out", str(out)]
    env = standin_cuda.variables(gpus=2, PATH=f"{tmp_path}:{os.environ['PATH']}")
    done = python("-m", "launch", "run", *words, "--processes", "1,2", env=env)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["--query-gpu=count,name", "--query-gpu=driver_version"]
    environments = json.loads((out / "environment.json").read_text())
    alone, both = (environments[row["environment"]]["variables"] for row in rows(out, "trials"))
    assert (alone.get("NCCL_P2P_DISABLE"), both["NCCL_P2P_DISABLE"], both["NCCL_IB_DISABLE"]) == (None, "1", "1")


def test_what_changes_speed_is_in_the_row(tmp_path: Path) -> None:
    """Also where one machine of the group has it and another has not, which `joined` puts together."""
    trial = planted.settings(micro_batch=4, processes=2)
    ran = planted.run(tmp_path, trial, planted.smooth, planted.noise, ONEDNN_MAX_CPU_ISA="AVX2", GLOO_X="a b")
    row = planted.well(ran).row()
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in row["variables"].split()
    assert row["group_variables"] == "'GLOO_X=a b'"
    assert row["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    for rank in ran.rows("ranks"):
        assert [rank[name] for name in ("variables", "group_variables")] == [row["variables"], row["group_variables"]]
    assert setup.joined(["none", "OMP_WAIT_POLICY=active", "none"]) == "none | OMP_WAIT_POLICY=active"
    assert setup.joined([None]) is None


@pytest.mark.parametrize("processes", [1, 2])
def test_fp16_on_a_cpu_is_refused(processes: int, tmp_path: Path) -> None:
    ran = planted.run(tmp_path, planted.settings(processes=processes, precision="fp16"), planted.smooth, planted.noise)
    assert "--precision fp16 needs a CUDA device" in planted.refused(ran)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("precision", "kind"), [("no", "torch.float32"), ("bf16", "torch.bfloat16")])
def test_precision_and_memory_format_are_what_the_model_works_in(
    processes: int, precision: Any, kind: str, tmp_path: Path
) -> None:
    memory_format: Any = "channels_last" if processes == 1 else "contiguous"
    trial = planted.settings(precision=precision, memory_format=memory_format, processes=processes, micro_batch=4)
    notes = planted.well(planted.run(tmp_path, trial, planted.telling, planted.noise)).seen()
    assert {note["training"] for note in notes} == {True, False}
    for note in notes:
        assert note["types"] == ["torch.float32", kind, kind, "torch.float32"]
        assert note["channels_last"] == [processes == 1] * 2


def test_accelerate_s_own_settings_do_not_reach_the_trial(tmp_path: Path) -> None:
    """Its accumulation would divide the gradients, and its compiler would compile what the row says is not."""
    load = functools.partial(planted.noise, train=24)
    trial = planted.settings(micro_batch=2, accumulate=2, processes=2)
    plain = planted.well(planted.run(tmp_path / "plain", trial, planted.smooth, load))
    variables: dict[str, Any] = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_DYNAMO_BACKEND": "EAGER"}
    other = planted.well(planted.run(tmp_path / "other", trial, planted.smooth, load, **variables))
    assert plain.column("steps", "train_loss") == other.column("steps", "train_loss")


def test_accelerate_launch_forms_the_group_and_trains(tmp_path: Path) -> None:
    from launch.group.accelerate_command import accelerate_command

    trial = planted.small(experiment="resnet20_accumulation", arm="16x8", processes=2, precision="bf16", micro_batch=3)
    variables, command = accelerate_command(trial, Options(out=tmp_path, checkpoint=False), gpus=0)
    ran = subprocess.run(command, env={**os.environ, **variables}, cwd=CHECKOUT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    row = planted.Ran(trial, tmp_path, []).row()
    assert (row["status"], row["processes"], row["backend"], row["precision"]) == ("ok", "2", "gloo", "bf16")
    assert (row["images_seen"], row["optimizer_steps"], row["trial_key"]) == ("22", "4", trial.key())
    assert int(row["threads"]) == max(1, cpu_count() // 2)
    assert not (tmp_path / "checkpoints").exists()
    assert f"the row is in {tmp_path}/trials.csv" in ran.stdout


@pytest.mark.parametrize("meets", ["by a file", "by TCP"])
def test_a_launcher_s_time_limits_come_before_torch_s_and_by_hand_there_is_one(meets: str, tmp_path: Path) -> None:
    """Torch's own ends the process without a word, and while one rank still fetches the data set."""
    found = {}
    for launcher in ("", "a launch"):
        folder = tmp_path / f"of {launcher}"
        folder.mkdir()
        variables = {LAUNCH_ID: launcher} | ({STORE: str(folder / "store")} if meets == "by a file" else {})
        codes = planted.group(2, planted.noting_patience, folder, said=folder, **variables)
        assert codes == [0, 0], (folder / "rank0.txt").read_text()
        found[launcher] = {seen["patience_s"] for seen in planted.Ran(planted.settings(), folder, codes).seen()}
    assert found == {"": {3600.0}, "a launch": {7 * 24 * 3600.0}}
