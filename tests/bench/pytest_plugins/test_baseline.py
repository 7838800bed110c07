"""pytest-benchmark's holes in CI, each run for real: what it lets through in silence fails here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from launching import own_environment

from bench.pytest_plugins.baseline import unlike

TESTS = """
def test_one(benchmark):
    benchmark.pedantic(sum, args=([1, 2],), rounds=5)

def test_other(benchmark):
    benchmark.pedantic(sum, args=([1, 2],), rounds=5)
"""


def ran(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """pytest in a project of its own, with the plugin."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "bench.pytest_plugins.baseline",
        "-p",
        "no:cacheprovider",
        *words,
    ]
    env = own_environment()
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose benchmarks were saved."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "test_it.py").write_text(TESTS)
    done = ran(folder, "--benchmark-json", "base.json")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def project(saved: Path, tmp_path: Path) -> Path:
    for name in ("test_it.py", "base.json"):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    return tmp_path


def change(path: Path, **machine: Any) -> None:
    found = json.loads(path.read_text())
    found["machine_info"] |= machine
    path.write_text(json.dumps(found))


def test_what_can_be_compared_passes(project: Path) -> None:
    before = (project / "base.json").read_bytes()
    assert ran(project, "--benchmark-baseline", "base.json").returncode == 0
    assert (project / "base.json").read_bytes() == before


def test_a_benchmark_that_is_gone_and_one_that_is_new_fail(project: Path) -> None:
    (project / "test_it.py").write_text(TESTS.replace("test_other", "test_new"))
    found = json.loads((project / "base.json").read_text())
    found["benchmarks"].append({"fullname": "test_it.py::test[\x1b[31m]"})
    (project / "base.json").write_text(json.dumps(found))
    done = ran(project, "--benchmark-baseline", "base.json")
    assert done.returncode == 1
    assert "\x1b[31m]" not in done.stdout
    assert "test_it.py::test[?[31m] is in the baseline and did not run" in done.stdout
    assert "benchmark baseline base.json: test_it.py::test_other is in the baseline and did not run" in done.stdout
    assert "benchmark baseline base.json: test_it.py::test_new is not in the baseline" in done.stdout
    assert ran(project, "--benchmark-compare", "base.json").returncode == 0  # pytest-benchmark's own word


def test_another_machine_fails(project: Path) -> None:
    change(project / "base.json", resbench={"device_name": "NVIDIA H100"})
    done = ran(project, "--benchmark-baseline", "base.json")
    assert done.returncode == 1
    assert "the baseline is of another machine: resbench {'device_name': 'NVIDIA H100'}, here None" in done.stdout


def test_what_one_side_does_not_know_is_no_difference() -> None:
    """As of a baseline that an older version wrote."""
    was, now = {"host": "tower", "torch": "2.9.0"}, {"host": "tower", "torch": "2.9.0", "variables": "none"}
    assert unlike("resbench", was, now) == unlike("resbench", now, was) == []
    assert unlike("resbench", {**was, "variables": "ONEDNN_MAX_CPU_ISA=AVX2"}, now) == [
        "resbench variables 'ONEDNN_MAX_CPU_ISA=AVX2', here 'none'"
    ]


@pytest.mark.parametrize("info", [None, {}])
def test_a_baseline_that_does_not_say_its_machine_fails(info: dict[str, Any] | None, project: Path) -> None:
    found = json.loads((project / "base.json").read_text())
    del found["machine_info"]
    (project / "base.json").write_text(json.dumps(found if info is None else {**found, "machine_info": info}))
    done = ran(project, "--benchmark-baseline", "base.json")
    assert done.returncode == 1
    assert "benchmark baseline base.json: the baseline does not say its machine's node, here " in done.stdout


def test_without_pytest_benchmark_it_says_so(project: Path) -> None:
    done = ran(project, "--benchmark-baseline", "base.json", "-p", "no:benchmark")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.strip() == "ERROR: there is no pytest-benchmark; run pip install pytest-benchmark"


@pytest.mark.parametrize("option", ["--benchmark-disable", "--benchmark-skip"])
def test_benchmarks_that_are_switched_off_fail(option: str, project: Path) -> None:
    done = ran(project, "--benchmark-baseline", "base.json", option)
    assert done.returncode == 4
    assert f"{option} switches the benchmarks off" in done.stderr


def test_workers_that_switch_them_off_fail(project: Path) -> None:
    done = ran(project, "--benchmark-baseline", "base.json", "-n", "2")
    assert done.returncode == 4
    assert "pytest-xdist switches the benchmarks off" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "base.json is no JSON of pytest-benchmark: FileNotFoundError"),
        ("", "base.json is no JSON of pytest-benchmark: JSONDecodeError"),
        ("[]", "base.json is no JSON of pytest-benchmark: TypeError"),
        ('{"benchmarks": [], "machine_info": {}}', "base.json has no benchmark in it"),
        ('{"benchmarks": [{"fullname": ["a"]}], "machine_info": {}}', "is no JSON of pytest-benchmark: TypeError"),
        ("[" * 100_000, "base.json is no JSON of pytest-benchmark: RecursionError"),
    ],
    ids=["missing", "empty", "foreign", "without benchmarks", "without a name", "nested"],
)
def test_a_baseline_that_is_none_fails(content: str | None, said: str, project: Path) -> None:
    (project / "base.json").unlink()
    if content is not None:
        (project / "base.json").write_text(content)
    done = ran(project, "--benchmark-baseline", "base.json")
    assert done.returncode == 4
    assert said in done.stderr


def test_an_empty_storage_fails(project: Path) -> None:
    (project / "store").mkdir()
    done = ran(project, "--benchmark-baseline", "store")
    assert done.returncode == 4
    assert "store has no JSON file in it" in done.stderr


def test_without_the_option_nothing_is_held_against_anything(project: Path) -> None:
    (project / "base.json").unlink()
    assert ran(project, "--benchmark-disable").returncode == 0
