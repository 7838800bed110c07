"""What environment.json keeps of the variables: those that change what runs, and nobody's secrets."""

from __future__ import annotations

import pytest

from bench.machine import environment

KEPT = {
    "NVIDIA_TF32_OVERRIDE": "0",
    "CUDA_LAUNCH_BLOCKING": "1",
    "CUDA_MODULE_LOADING": "EAGER",
    "NCCL_ALGO": "Ring",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    "TORCHDYNAMO_DISABLE": "1",
    "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "KMP_AFFINITY": "granularity=fine,compact,1,0",
    "MKL_NUM_THREADS": "3",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
SECRET = {"NVIDIA_API_KEY": "s3cr3t", "TORCH_HUB_TOKEN": "s3cr3t", "NVIDIA_NGC_password": "s3cr3t"}
OTHERS = {"HOME_OF_CUDA": "/opt", "MY_NCCL_ALGO": "Tree"}


def test_what_changes_what_runs_is_kept_and_no_secret_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEPT, **SECRET, **OTHERS}.items():
        monkeypatch.setenv(name, value)
    found = environment.describe({})
    assert {name: found["variables"].get(name) for name in KEPT} == KEPT
    assert not {*SECRET, *OTHERS} & set(found["variables"])
    assert "s3cr3t" not in str(found)


@pytest.mark.parametrize("name", KEPT)
def test_each_makes_another_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = environment.key(environment.describe({}))
    monkeypatch.setenv(name, "another")
    assert environment.key(environment.describe({})) != plain
