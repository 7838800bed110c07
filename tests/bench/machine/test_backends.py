"""TF32 and cuDNN's benchmark mode are the trial's: in torch's own words, and in what it asks of the libraries."""

from __future__ import annotations

import json
from pathlib import Path

import planted
from launching import SMALL, is_one_error, python, rows
from standin_cuda.standin import Standin

RUN = ("-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1", *SMALL, "--epochs", "1", "--no-checkpoint")

ASKED = """
import math
import os
import types
import torch
from bench.machine import backends
from bench.training import setup
from bench.trial import Trial
from bench.errors import UsageError
from tests.standin_cuda import counts

device = torch.device("cuda", 0)
images, weight = torch.zeros(4, 3, 8, 8, device=device), torch.zeros(5, 3, 3, 3, device=device, requires_grad=True)
linear = torch.nn.Linear(16, 16, device=device)


def show(what):
    before = counts.read()
    torch.conv2d(images, weight).sum().backward()
    linear(linear.weight).sum().backward()
    found = counts.read().since(before)
    print(what, found.tf32_convolutions, found.tf32_products, *backends.allowed())


def configured(**settings):
    try:
        backends.configure(Trial(**settings), device)
    except UsageError as error:
        return print(error)
    show(settings)
    # What of torch reads the older names is to find them readable, and right.
    print(torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision())


show("torch itself")
configured()
configured(tf32=True)
if hasattr(torch.backends.cudnn, "conv"):
    torch.backends.fp32_precision = torch.backends.cudnn.conv.fp32_precision = "tf32"
    configured()
    torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "ieee"
    configured(tf32=True)
configured(cudnn_benchmark=True)
os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
configured(tf32=True)
for other in ([300.0, 2e9, 2e9], [math.nan, 1e9, 2e9]):
    group = types.SimpleNamespace(device=device, gather=lambda mine: [mine, other])
    print(*setup.limits(group).values())
"""
FALSE = ["{} 0 0 False False False", "False False highest"]
TRUE = ["{'tf32': True} 2 3 True True False", "True True high"]
BENCHMARK = ["{'cudnn_benchmark': True} 0 0 False False True", "False False highest"]


def test_float32_is_float32_unless_tf32_is_asked_for_and_then_it_is_tf32(standin_cuda: Standin) -> None:
    """Two convolutions and three products, forward and backward: cuDNN's math type and cuBLAS's, as torch sets them."""
    import torch

    # By cuDNN's older interface, which has a math type; by the newer one torch leaves out plans by what they note.
    variables = standin_cuda.variables(capability="8.0", arithmetic=False, TORCH_CUDNN_V8_API_DISABLED="1")
    done = python("-W", "error", "-c", ASKED, env=variables)
    assert done.returncode == 0, done.stderr
    newer = [*FALSE, *TRUE] if hasattr(torch.backends.cudnn, "conv") else []
    itself, *found, refused, lowest, partly = done.stdout.splitlines()
    assert itself == "torch itself 2 0 True False False"
    assert found == [*FALSE, *TRUE, *newer, *BENCHMARK]
    assert refused == "--tf32 True: NVIDIA_TF32_OVERRIDE=0 forbids it; leave it out"
    # What the GPUs of a group are set to, of another of which this is known.
    assert (lowest, partly) == ("300.0 1410000000.0 1980000000.0", "None 1000000000.0 1980000000.0")


def test_a_gpu_without_tf32_refuses_it_and_computes_in_float32(standin_cuda: Standin) -> None:
    done = python("-c", ASKED, env=standin_cuda.variables(capability="7.5", arithmetic=False))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1:3] == FALSE
    assert lines[3] == (
        "--tf32 True: Stand-in GPU (no hardware) has none, which needs compute capability 8.0; leave it out"
    )


def test_on_a_cpu_they_are_refused_before_anything_starts(tmp_path: Path) -> None:
    done = python(*RUN, "--tf32", "True", "--out", str(tmp_path / "run"))
    assert is_one_error(done), done.stderr
    assert "--tf32 True needs a CUDA device" in done.stderr
    assert not (tmp_path / "run").exists()


def test_so_they_are_by_the_worker(tmp_path: Path) -> None:
    ran = planted.run(tmp_path, planted.settings(cudnn_benchmark=True), planted.smooth, planted.noise)
    assert "--cudnn-benchmark True needs a CUDA device" in planted.refused(ran)


def test_whole_trials_have_them_in_their_rows(standin_cuda: Standin, tmp_path: Path) -> None:
    variables = standin_cuda.variables(NVIDIA_TF32_OVERRIDE="1", NVIDIA_API_KEY="secret")
    done = python(*RUN, "--tf32", "False,True", "--cudnn-benchmark", "True", "--out", str(tmp_path), env=variables)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path, "trials")
    environments = json.loads((tmp_path / "environment.json").read_text())
    assert [(row["status"], row["tf32"], row["cudnn_benchmark"]) for row in found] == [
        ("ok", "false", "true"),
        ("ok", "true", "true"),
    ]
    for row in found:
        on = row["tf32"] == "true"
        environment = environments[row["environment"]]
        assert environment["allowed"] == {
            "tf32_in_convolutions": on,
            "tf32_in_products": on,
            "cudnn_benchmark": True,
        }
        assert environment["variables"]["NVIDIA_TF32_OVERRIDE"] == "1"
        assert "secret" not in json.dumps(environment)
        assert [float(row[name]) for name in ("power_limit_w", "application_sm_clock_hz", "max_sm_clock_hz")] == [
            400.0,
            1.41e9,
            1.98e9,
        ]
    assert found[0]["published_differs"] == found[1]["published_differs"]
