"""The checks of `make test-gpu` on stand-in GPUs: what they claim holds there, or it says why it cannot be shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu.__main__ import FILES
from gpu_on_standin import FOLDER, Ran, checks, run
from launching import is_one_error, python
from standin_cuda.standin import Standin

CHECKS = {name: check for file in FILES for name, check in checks(file).items()}


@pytest.fixture(scope="module")
def ran(standin_cuda: Standin, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Ran]:
    """On two GPUs with arithmetic, which numbers need, and on one without, where sizes and waits are those of CUDA's
    operations."""
    gpus = {True: 2, False: 1}
    return {has: run(standin_cuda, tmp_path_factory.mktemp("gpu"), gpus[has], has) for has in gpus}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", CHECKS)
def test_what_a_gpu_has_to_show_the_stand_in_shows(ran: dict[bool, Ran], name: str) -> None:
    text, without_arithmetic = CHECKS[name]
    found = ran[not without_arithmetic]
    results = found.results(text)
    assert results, found.said
    if any(result.startswith("skipped: the stand-in cannot show it: ") for result in results):
        pytest.skip(results[0].removeprefix("skipped: "))
    assert set(results) == {"ok"}, found.said


def test_every_file_of_checks_is_run() -> None:
    assert sorted(FILES) == sorted(path.stem.removeprefix("test_gpu_") for path in FOLDER.glob("test_*.py"))


@pytest.mark.parametrize("gpus", [0, 1])
def test_without_a_gpu_it_fails_and_of_the_stand_in_it_writes_no_report(gpus: int, standin_cuda: Standin) -> None:
    """One sentence either way, exit code 2, and tests/GPU.md as it was."""
    report = FOLDER.parent / "GPU.md"
    before = report.read_text() if report.exists() else None
    done = python("-m", "tests.gpu", env=standin_cuda.variables(gpus, arithmetic=False))
    assert is_one_error(done), done.stderr
    assert ("this is the stand-in" if gpus else "make test-gpu needs a GPU") in done.stderr
    assert (report.read_text() if report.exists() else None) == before


def test_a_check_that_fails_dies_or_skips_leaves_its_line(tmp_path: Path) -> None:
    """The run goes on, and each line says what happened, with the figures that were there by then."""
    (tmp_path / "gpu").mkdir()
    for name in ("__init__.py", "apart.py", "conftest.py", "device.py", "sheet.py", "trials.py"):
        (tmp_path / "gpu" / name).write_text((FOLDER / name).read_text())
    (tmp_path / "gpu" / "test_gpu_planted.py").write_text(PLANTED)
    code = RUN.format(folder=tmp_path / "gpu", out=tmp_path / "GPU.md")
    done = python("-c", code)
    lines = [line for line in (tmp_path / "GPU.md").read_text().splitlines() if line.startswith("| It")]
    assert [line.rpartition(" | ")[0] for line in lines] == [
        "| It fails | FAILED: AssertionError: two is not three | seen 2",
        "| It dies | FAILED: RuntimeError: the process died with exit code -9 | ",
        "| It skips | skipped: there is no moon | looked up",
        "| It is well (case) | ok | a 1; b 2",
        "| It comes too late | FAILED: not run: the time is over | ",
    ], done.stdout
    assert "5 checks: 1 ok, 3 FAILED, 1 skipped" in (tmp_path / "GPU.md").read_text()


PLANTED = '''
import os, signal
import pytest

def test_fails(figures):
    """It fails."""
    figures["seen"] = 2
    raise AssertionError("two is not three")

def test_dies():
    """It dies"""
    os.kill(os.getpid(), signal.SIGKILL)

def test_skips(figures):
    """It skips"""
    figures["looked"] = "up"
    pytest.skip("there is no moon")

@pytest.mark.parametrize("what", ["case"])
def test_well(figures, what):
    """It is well"""
    figures |= {"a": 1, "b": 2}

def test_late(over):
    """It comes too late"""

@pytest.fixture
def over():
    pytest.fail("not run: the time is over", pytrace=False)
'''
RUN = """
import sys
sys.path.insert(0, "tests")
import pytest
from bench.entry import imports_that_stay
with imports_that_stay():
    import torch
from tests.gpu.sheet import Sheet
from pathlib import Path
known = dict(gpus=["none"], cpu_model="", cpu_count=1, torch="", cuda="", cudnn="", driver="", accelerate="", commit="")
sheet = Sheet(Path("{out}"), known, 9.0)
pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", "{folder}", "{folder}"], plugins=[sheet])
"""
