"""Out of memory: which exceptions are, and what they say."""

from __future__ import annotations

import ast
import errno
import re
from pathlib import Path

import pytest
import torch

from bench.errors import UsageError
from bench.failure import oom
from bench.record.columns import OOM_PHASES

CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.00 GiB is free"
)
# As torch puts it (NCCLUtils.hpp): ncclGetErrorString, what the code means, and NCCL's own last error.
NCCL = (
    "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled cuda error (run with NCCL_DEBUG=INFO for details), "
    "NCCL version 2.28.9\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n{}"
)
CPU = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1234567 bytes. Error code 12"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(CUDA),
        RuntimeError(CPU),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),  # what cuDNN 8 has of both
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        torch.distributed.DistBackendError(NCCL.format("Failed to CUDA calloc async 608 bytes")),
        torch.distributed.DistBackendError(NCCL.format("Failed to CUDA calloc 6291456 bytes")),
        torch.distributed.DistBackendError(NCCL.format("Failed to CUDA malloc 4096 bytes")),
        torch.distributed.DistBackendError(NCCL.format("Failed to CUDA host alloc 4096 bytes")),
        torch.distributed.DistBackendError(NCCL.format("Failed to malloc 4096 bytes")),
        torch.distributed.DistBackendError(NCCL.format("Cuda failure 2 'out of memory'")),
        torch.distributed.DistBackendError(NCCL.format("Cuda failure 'out of memory'")),
        RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp"),
        RuntimeError("unable to mmap 64 bytes from file <filename not specified>: Cannot allocate memory (12)"),
        RuntimeError("Caught RuntimeError in DataLoader worker process 0.\n" + "a line\n" * 100 + CPU),
        OSError(errno.ENOMEM, "no fork"),
    ],
    ids=str,
)
def test_these_are(error: Exception) -> None:
    assert oom.shortage(error, limited=False) is error


@pytest.mark.parametrize("text", ["could not create a primitive", "can't start new thread"])
def test_what_a_library_says_under_a_limit_alone(text: str) -> None:
    assert oom.shortage(RuntimeError(text), limited=True)
    assert oom.shortage(RuntimeError(text), limited=False) is None


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"),
        RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
        OSError(errno.ENOSPC, "No space left on device"),
        UsageError("--memory-limit is out of memory, a word of the user's"),
        torch.distributed.DistBackendError(NCCL.format("Cuda failure 'unhandled cuda error'")),
        torch.distributed.DistBackendError(NCCL.format("Failed to initialize NET plugin IB")),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    ],
    ids=str,
)
def test_these_are_not(error: Exception) -> None:
    assert oom.shortage(error, limited=True) is None


def answered(hide: bool) -> Exception:
    """An error that is raised in answer to another."""
    try:
        try:
            raise RuntimeError(CPU)
        except RuntimeError as error:
            raise UsageError("the data set is damaged") from (None if hide else error)
    except UsageError as found:
        return found


def test_a_request_that_failed_for_want_of_memory_is_out_of_memory() -> None:
    assert str(oom.shortage(answered(hide=False), limited=False)) == CPU
    assert oom.shortage(answered(hide=True), limited=False) is None


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (CPU, 1234567),
        (CUDA, 5 * 2**29),
        ("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0;", 20 * 2**20),
        ("CUDA out of memory. Tried to allocate 512 bytes.", 512),
        (NCCL.format("Failed to CUDA calloc async 608 bytes"), 608),
        (NCCL.format("Failed to CUDA calloc 6291456 bytes"), 6291456),
        ("CUDA error: out of memory", None),
        ("", None),
    ],
)
def test_what_was_asked_for_is_read_as_it_is_printed(text: str, count: int | None) -> None:
    assert oom.requested_bytes(text) == count


def test_the_libraries_names_for_it_are_those_of_their_headers() -> None:
    """Of every status of cuDNN, cuBLAS and the others that torch's wheels bring, those of allocation and no other."""
    folders = (Path(torch.__file__).parent.parent / "nvidia").glob("*/include")
    headers = [path for folder in folders for path in folder.glob("cu*.h")]
    if not headers:
        pytest.skip("no CUDA headers beside torch")
    text = "".join(path.read_text(errors="replace") for path in headers)
    statuses = set(
        re.findall(r"\bCU(?:DNN|BLAS|SOLVER|SPARSE|RAND|FFT)_(?:STATUS_)?[A-Z_]+(?=\s+(?:CUDNN_\w+\s+)?=)", text)
    )
    found = {name for name in statuses if oom.shortage(RuntimeError(f"error: {name}"), limited=False)}
    assert found == {name for name in statuses if "ALLOC" in name}
    assert "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED" in found
    assert {"CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"} < found


def test_the_functions_that_tell_the_phase_exist() -> None:
    for file, function in oom.PHASES:
        tree = ast.parse((oom.BENCH / file).read_text())
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (file, function)
    assert {phase for phase in oom.PHASES.values() if phase} == set(OOM_PHASES)


def test_the_innermost_function_counts_and_only_ours() -> None:
    ours = [(str(oom.BENCH / file), function) for file, function in [("worker.py", "work"), ("worker.py", "run_epoch")]]
    assert oom.phase_of(ours) is None
    assert (
        oom.phase_of([*ours, (str(oom.BENCH / "training/loop.py"), "backward"), ("/lib/train.py", "forward")])
        == "backward"
    )
    assert oom.phase_of([("/lib/bench.py", "work")]) is None
