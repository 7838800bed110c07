"""What several test files share."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# Two test processes on two cores: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ACCELERATE_USE_CPU", "true")

# Test processes side by side have a CPU each, and so have the trials that they start: two that share all of them
# train far more slowly than one after the other.
if (number := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")).isdecimal():
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[int(number) % len(cpus)]})

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def standin_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a library in place of NVIDIA's, for LD_LIBRARY_PATH; STANDIN_NVML tells it what to answer."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler (cc) to build the stand-in for NVIDIA's library with")
    folder = tmp_path_factory.mktemp("nvml")
    source, library = CHECKOUT / "tests" / "standin_nvml.c", folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-o", str(library), str(source)], check=True)
    return folder
