"""What environment.json keeps of the variables: those that change what runs, and nobody's secrets."""

from __future__ import annotations

import pytest

from bench.machine import environment
from reports.verdicts import likeness

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
# Those of KEPT and these change speed. The values are not their defaults.
OF_SPEED = {
    **{name: value for name, value in KEPT.items() if name not in ("NCCL_ALGO", "MKL_NUM_THREADS")},
    "KMP_AFFINITY": "scatter",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ONEDNN_VERBOSE": "1",
    "OMP_WAIT_POLICY": "active",
    "GOMP_CPU_AFFINITY": "0 3-6",
    "OPENBLAS_CORETYPE": "HASWELL",
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "LD_PRELOAD": "/usr/lib/libjemalloc.so.2",
    "PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync",
    "TORCH_CUDNN_V8_API_DISABLED": "1",
    "THP_MEM_ALLOC_ENABLE": "1",
    "LRU_CACHE_CAPACITY": "1",
    "CUDNN_FRONTEND_ATTN_DP_WORKSPACE_LIMIT": "0",
    "CUBLASLT_WORKSPACE_SIZE": "0",
    "MIOPEN_FIND_MODE": "2",
    "PYTHONMALLOC": "malloc",
    "PYTHONOPTIMIZE": "1",
}
OF_GROUP = {
    "NCCL_ALGO": "Ring",
    "NCCL_TOPO_FILE": "topology.xml",
    "GLOO_DEVICE_TRANSPORT": "UV",
    "TORCH_DISTRIBUTED_DEBUG": "DETAIL",
}
# What launchers, images and torch set, and what says where something is or what is printed.
OF_NONE = {
    "CUDA_VISIBLE_DEVICES": "3",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "3",
    "CUDA_VERSION": "13.0",
    "CUDA_HOME": "/usr/local/cuda",
    "TORCH_CUDA_ARCH_LIST": "9.0",
    "TORCH_HOME": "/cache",
    "NCCL_VERSION": "2.28",
    "NCCL_DEBUG": "INFO",
    "TORCH_LOGS": "+dynamo",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "CUDA_MODULE_LOADING": "LAZY",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    "CUDA_CACHE_PATH": "/cache",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    "PYTHONPATH": "/src",
    "PYTHONHASHSEED": "0",
    "KMP_AFFINITY": KEPT["KMP_AFFINITY"],
    "KMP_BLOCKTIME": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
SECRET = {"NVIDIA_API_KEY": "s3cr3t", "TORCH_HUB_TOKEN": "s3cr3t", "NVIDIA_NGC_password": "s3cr3t"}
SECRET |= {"TORCHINDUCTOR_REDIS_URL": "s3cr3t", "NCCL_X": "http://me:s3cr3t@host", "PYTORCH_AUTH": "s3cr3t"}
SECRET |= {"NVIDIA_REGISTRY": "s3cr3t", "HF_TOKEN": "s3cr3t", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}
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


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in environment.recorded((*environment.SPEED, *environment.GROUP_SPEED)):
        monkeypatch.delenv(name)
    return monkeypatch


def test_what_changes_speed_is_in_the_row_and_nothing_else_is(nothing_set: pytest.MonkeyPatch) -> None:
    assert environment.machine()["variables"] == environment.of_group_speed(1) == "none"
    for name, value in {**OF_NONE, **SECRET, **OTHERS}.items():
        nothing_set.setenv(name, value)
    assert environment.machine()["variables"] == environment.of_group_speed(1) == "none"
    for name, value in {**OF_SPEED, **OF_GROUP}.items():
        nothing_set.setenv(name, value)
    assert dict(likeness.variables(environment.machine()["variables"])) == OF_SPEED
    assert dict(likeness.variables(environment.of_group_speed(1))) == OF_GROUP
    assert "s3cr3t" not in environment.of_speed() + environment.of_group_speed(2)


def test_between_machines_the_interface_changes_speed(nothing_set: pytest.MonkeyPatch) -> None:
    nothing_set.setenv("GLOO_SOCKET_IFNAME", "ib0")
    assert environment.of_group_speed(1) == "none"
    assert environment.of_group_speed(2) == "GLOO_SOCKET_IFNAME=ib0"
