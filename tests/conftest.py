"""What several test files share."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from standin_cuda import build
from standin_cuda.standin import Standin

from bench.entry import imports_that_stay

# Two test processes on two cores: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ACCELERATE_USE_CPU", "true")
# The terminal's, which readline sets for what it starts: a pipe has no width unless somebody gives it one.
os.environ.pop("COLUMNS", None)
# What torch.compile makes has no vector instructions here. Torch would try each kind of them first, in a process that
# imports torch, and their headers take the C++ compiler far longer than the code itself. Read when torch is imported.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "0")

# Test processes side by side have a CPU each, and so have the trials that they start: two that share all of them
# train far more slowly than one after the other.
if (number := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")).isdecimal():
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[int(number) % len(cpus)]})

Launch = Callable[..., subprocess.CompletedProcess[str]]
CHECKOUT = Path(__file__).resolve().parent.parent
# The files with the longest tests are here. They run first, so that no test process waits for another at the end.
FIRST = ("standin", "launch", "test_question_noskip.py")


@pytest.fixture(scope="session")
def standin_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a library in place of NVIDIA's, for LD_LIBRARY_PATH; STANDIN_NVML tells it what to answer.

    An empty one in place of CUDA's driver keeps torch from the GPUs that the machine may have.
    """
    if not shutil.which("cc"):
        pytest.skip("no C compiler (cc) to build the stand-in for NVIDIA's library with")
    folder = tmp_path_factory.mktemp("nvml")
    build.build_nvml(folder)
    subprocess.run(["cc", "-shared", "-x", "c", "/dev/null", "-o", folder / "libcuda.so.1"], check=True)
    return folder


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Runs `python -m launch` with these words in this process, its trials forked off a server that all such share."""
    import shared_server

    return shared_server.launch_with(tmp_path_factory.mktemp("server") / "warm.log")


@pytest.fixture(scope="session")
def standin_cuda(tmp_path_factory: pytest.TempPathFactory) -> Standin:
    """GPUs that are not there, for commands that are started with its `variables`. One serves all test processes."""
    if reason := build.why_not():
        pytest.skip(reason)
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "standin_cuda"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "built").exists():
            build.build(folder)
            (folder / "built").touch()
    return Standin(folder)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What the test files import, torch among it, stays."""
    with imports_that_stay():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(top) if (top := top_of(item)) in FIRST else len(FIRST))
    for item in items:
        if "standin_cuda" in getattr(item, "fixturenames", ()):
            item.add_marker("standin")


def top_of(item: pytest.Item) -> str:
    """The folder, or the file, in tests that this test is in; "" of one that is elsewhere."""
    tests = CHECKOUT / "tests"
    return item.path.relative_to(tests).parts[0] if tests in item.path.parents else ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests had the stand-in GPU: where it cannot be built they skip, and a green run says nothing."""
    ran = sum("standin" in report.keywords for report in terminalreporter.getreports("passed"))
    terminalreporter.write_line(f"{ran} tests passed on the stand-in GPU (tests/standin_cuda)")
