"""What runs on one side of `launch gate --pytest`, each in a pytest of its own without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from launching import own_environment

from bench.pytest_plugins.side import message

TESTS = """
import pytest
from own import helper

@pytest.fixture
def benchmark_step():
    return lambda step: step()

def test_b(benchmark_step):
    helper()

def test_a(benchmark_step):
    raise ValueError("one\\ntwo")

@pytest.mark.skip
def test_c(benchmark_step):
    pass

def test_plain(benchmark):
    pass
"""


def ran(folder: Path, *words: str, tests: list[str] | None = None) -> tuple[int, list[dict[str, Any]], str]:
    """(exit code, outcomes, output) of pytest as one side in this folder."""
    outcomes, settings = folder.parent / "outcomes", folder.parent / "settings"
    parts = {"outcomes": outcomes, "original": folder, "tree": folder.parent / "tree"}
    settings.write_text(json.dumps({"tests": tests, **{name: str(path) for name, path in parts.items()}}))
    command = [sys.executable, "-m", "pytest", "-p", "bench.pytest_plugins.side", f"--gate-side={settings}", *words]
    done = subprocess.run(command, cwd=folder, env=own_environment(), capture_output=True, text=True, check=False)
    lines = outcomes.read_text().splitlines() if outcomes.exists() else []
    return done.returncode, [json.loads(line) for line in lines], done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "own.py").write_text("def helper(): pass")
    (folder / "test_it.py").write_text(TESTS)
    return folder


def test_the_steps_alone_run_in_the_order_that_is_given_and_how_they_end_is_written(project: Path) -> None:
    chosen = [f"test_it.py::test_{name}" for name in ("a", "b", "gone", "c")]
    code, outcomes, said = ran(project, tests=chosen)
    a, b, c = chosen[0], chosen[1], chosen[3]
    assert code == 1, said
    assert outcomes == [
        {"found": [a, b, c], "left_out": 1},
        {"started": a},
        {"ended": a, "error": "ValueError: one"},
        {"started": b},
        {"ended": b, "error": ""},
        {"started": c},
        {"ended": c, "error": ""},
        {"foreign": []},
    ]


def test_files_of_the_user_s_checkout_that_the_commit_has_too_are_named(project: Path) -> None:
    tree = project.parent / "tree"
    tree.mkdir()
    assert ran(project, "--collect-only")[1][-1] == {"foreign": []}
    (tree / "own.py").touch()
    (project.parent / "outcomes").unlink()
    code, outcomes, _ = ran(project, "--collect-only")
    assert (code, outcomes[-1]) == (0, {"foreign": [str(project / "own.py")]})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--benchmark-disable",), "--benchmark-disable switches the benchmarks off"),
        (("-n", "2"), "pytest-xdist switches the benchmarks off"),
        (("-p", "no:benchmark"), "there is no pytest-benchmark; run pip install pytest-benchmark"),
    ],
)
def test_where_nothing_would_be_measured_it_fails(words: tuple[str, ...], said: str, project: Path) -> None:
    code, outcomes, printed = ran(project, *words)
    assert (code, outcomes) == (4, [])
    assert said in printed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("assert 1 == 2\n  more", "assert 1 == 2"),
        (
            "OSError: Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
            '  File "x.py", line 3, in f\n    save()\nOSError: [Errno 28] No space left on device\n',
            "OSError: Caught OSError in DataLoader worker process 0: OSError: [Errno 28] No space left on device",
        ),
        ("", "no message"),
    ],
)
def test_the_error_of_a_test_that_failed_is_its_cause(text: str, said: str) -> None:
    report: Any = SimpleNamespace(longrepr=SimpleNamespace(reprcrash=SimpleNamespace(message=text)))
    assert message(report) == said
