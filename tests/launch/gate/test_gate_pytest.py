"""Two commits of a project of the user's own, whose steps burn what its commit says: the slower one is found."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import CHECKOUT
from own_project import SHORT, commit, gate, git

from bench.errors import UsageError
from launch.gate import measure, project_table, request, sides
from launch.gate.pytest_project import Project
from launch.gate.pytest_side import PytestSide, launch_file
from reports.verdicts import compare
from reports.verdicts.significance import Change
from reports.verdicts.turns import FEWEST

# A busy loop of so much CPU time, whatever else the machine does.
STEPS = """
import time
from pathlib import Path
import pytest
from models.net import SECONDS

def step():
    end = time.thread_time() + SECONDS
    while time.thread_time() < end:
        pass

def test_slower(benchmark_step):
    benchmark_step(step, rounds=5)

def test_{name}(benchmark_step):
    benchmark_step(step)

def test_other(benchmark):
    raise AssertionError("no turns, so not run")

def test_skipped_in_head(benchmark_step):
    if "{name}" == "new":
        pytest.skip("not here")
    benchmark_step(step, rounds=5)

def test_broken_in_head(benchmark_step):
    runs = Path({runs!r} + "{name}")
    runs.open("a").write("x")
    if "{name}" == "new" and len(runs.read_text()) == 3:
        benchmark_step(lambda: 1 / 0)
    benchmark_step(step, rounds=5)
"""
PROJECT = {"models/net.py": "SECONDS = {seconds}", "tests/perf/conftest.py": SHORT, "tests/perf/test_perf.py": STEPS}
TABLE = '[tool.resbench.gate]\npytest = ["tests/perf"]\npairs = 3\nmargin = "5%"\nfail-inconclusive = true\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with the commits base and head. It has a `models` of its own, as this suite has."""
    if not shutil.which("git"):
        pytest.skip("no git")
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for tag, name, seconds in (("base", "old", 0.002), ("head", "new", 0.004)):
        known = {"name": name, "seconds": seconds, "runs": str(tmp_path / "runs-")}
        commit(folder, tag, {path: text.format(**known) for path, text in PROJECT.items()})
    return folder


def test_a_step_twice_as_slow_and_one_that_fails_in_the_last_pair_are_regressions(project: Path) -> None:
    (project / "pyproject.toml").write_text(TABLE)
    code, said = gate(project, "base", "head", "--out", "found")
    assert code == 1, said
    assert "pair 3 of at most 3" in said
    assert "only in base, and not compared: tests/perf/test_perf.py::test_old\n" in said
    assert "only in head, and not compared: tests/perf/test_perf.py::test_new\n" in said
    failed = "head: tests/perf/test_perf.py::test_broken_in_head: ZeroDivisionError: division by zero; see "
    assert failed + f"{project}/found/head/pytest.txt\n" in said
    out = project / "found"
    found = compare.compare_runs(out / "base", out / "head", 0.05, 0.01, strict=False)
    verdicts = {(each.trial.rpartition("::")[2], each.metric): each for each in found.comparisons}
    slower = verdicts["test_slower", "step_cpu_time_p50_s"]
    assert isinstance(slower.change, Change)
    assert (slower.verdict, len(slower.base)) == ("regressed", 3)
    assert 1.9 < math.exp(slower.change.mean) < 2.1, "each round burns its CPU time, whoever else runs"
    broken = verdicts["test_broken_in_head", ""]
    assert broken.verdict == "regressed"
    assert broken.why == "1 of 3 launches in HEAD failed, 0 of 3 in BASE; crashed: ZeroDivisionError: division by zero"
    assert verdicts["test_skipped_in_head", ""].why == "it is missing in HEAD"
    launches = [json.loads((out / side / "0000.json").read_text()) for side in ("base", "head")]
    assert [each["commit_info"]["id"] for each in launches] == git(project, "rev-parse", "base", "head").split()
    base, head = ({each["name"]: each["extra_info"]["turns"] for each in side["benchmarks"]} for side in launches)
    for name in ("test_slower", "test_broken_in_head"):
        assert base[name]["with"] == [head[name]["launch_id"]]
        assert head[name]["with"] == [base[name]["launch_id"]]
        assert len(base[name]["step_time_s"].keys() & head[name]["step_time_s"].keys()) >= FEWEST


# Refused before anything is measured, each as one sentence.


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"bench/__init__.py": ""}, "base has a package bench of its own"),
        ({"tests/perf/test_perf.py": "import nowhere"}, "base: pytest tests/perf finds no tests; see above"),
        ({"tests/perf/test_perf.py": "def test_it(): pass"}, "finds no test in both commits that uses the fixture"),
    ],
    ids=["its own bench", "no import", "no step"],
)
def test_what_cannot_be_measured_ends_with_2(files: dict[str, str], said: str, project: Path) -> None:
    commit(project, "other", files)
    (project / "used").mkdir()
    (project / "used" / "mine").touch()
    code, printed = gate(project, "other", "other", "--out", "used", "--pytest", "tests/perf")
    assert code == 2, printed
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert said in line
    assert [path.name for path in (project / "used").iterdir()] == ["mine"]
    assert not (project / "runs").exists()


def test_a_folder_in_use_is_refused_before_anything_is_measured(project: Path) -> None:
    (project / "used").mkdir()
    (project / "used" / "mine").touch()
    code, printed = gate(project, "base", "head", "--out", "used", "--pytest", "tests/perf")
    assert code == 2, printed
    assert printed.splitlines()[-1] == f"error: {project}/used is there already; choose another --out, or remove it"
    assert "pair 1" not in printed


# Without a process: a side's own parts


@pytest.fixture
def side(tmp_path: Path) -> PytestSide:
    for name in ("original", "tree", "scratch", "out"):
        (tmp_path / name).mkdir()
    tree = tmp_path / "tree"
    own = Project("head", tree, tree, tmp_path / "original", ["tests"], tmp_path / "scratch")
    return PytestSide("head", "f" * 40, tree, tmp_path / "out", lambda number: [], {}, own, ["a", "b"])


def ended(side: PytestSide, code: int, *lines: dict[str, object], benchmarks: list[object] | None = None) -> None:
    """A launch that wrote these outcomes, and then ended."""
    (side.project.scratch / "0").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"not who')
    if benchmarks:
        info = {"id": side.commit, "dirty": False}
        found = {"datetime": "2026-01-01", "machine_info": {}, "commit_info": info, "benchmarks": benchmarks}
        launch_file(side.folder, 0).write_text(json.dumps(found))
    side.finish(0, code, "g-0")


@pytest.mark.parametrize(
    ("code", "lines", "failed"),
    [
        (-11, [{"started": "a"}, {"ended": "a", "error": ""}, {"started": "b"}], {"b": "killed by SIGSEGV"}),
        (-9, [], {"a": "killed by SIGKILL", "b": "killed by SIGKILL"}),
        (3, [{"started": "a"}], {"a": "pytest ended with exit code 3"}),
        (1, [{"ended": "a", "error": "ValueError: x"}, {"ended": "b", "error": ""}], {"a": "ValueError: x"}),
        (130, [{"ended": "a", "error": "ValueError: x"}, {"started": "b"}], {"a": "ValueError: x"}),
    ],
    ids=["killed in a test", "killed before", "broken", "failed", "ended by the other"],
)
def test_whatever_ends_a_launch_its_tests_that_failed_have_rows(
    code: int, lines: list[dict[str, object]], failed: dict[str, str], side: PytestSide
) -> None:
    ended(side, code, *lines)
    table = compare.launches(side.folder)
    assert dict(zip(table["arm"], table["error"], strict=True)) == failed
    assert set(table["status"]) == {"crashed"}
    assert side.rows()[-1]["commit"] == "f" * 12
    measure.check([side], side, code)


def test_a_side_that_the_other_one_ended_has_no_row_for_that(side: PytestSide) -> None:
    ended(side, 130, {"started": "a"})
    assert side.rows() == []


def test_a_launch_that_measured_nothing_is_an_error(side: PytestSide) -> None:
    with pytest.raises(UsageError, match=r"no test has measured anything; see .*pytest\.txt"):
        ended(side, 0, {"ended": "a", "error": ""})


def test_a_gpu_without_room_for_both_is_told_from_other_failures(side: PytestSide) -> None:
    ended(side, 1, {"ended": "a", "error": "torch.OutOfMemoryError: CUDA out of memory"})
    assert measure.out_of_device_memory([side])
    assert list(compare.launches(side.folder)["status"]) == ["oom"]


def test_the_user_s_own_checkout_is_not_measured_in_place_of_a_commit(side: PytestSide) -> None:
    with pytest.raises(UsageError, match=r"head imports /home/a/net\.py, which is no file of its commit's checkout"):
        ended(side, 0, {"foreign": ["/home/a/net.py"]})


def test_a_process_imports_from_its_own_commit_first(side: PytestSide, monkeypatch: pytest.MonkeyPatch) -> None:
    own, tree = side.project.original, side.tree
    (tree / "src").mkdir()
    (own / "venv").mkdir()
    monkeypatch.setattr(sys, "path", [str(own), str(own / "src"), str(own / "venv"), *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [CHECKOUT, side.folder, own / "src"])))
    *folders, suite = side.project.variables()["PYTHONPATH"].split(os.pathsep)
    assert folders == [str(tree), str(tree / "src"), str(side.folder)]
    assert os.listdir(suite) == ["bench"]
    assert (Path(suite) / "bench").resolve() == CHECKOUT / "bench"


SLEEPS = "import time; time.sleep(1000)"
WAITS = "from bench.instruments import turns; turns.from_environment().begin('id', 'key')"


def hanging(side: PytestSide, name: str, code: str, seconds: float) -> PytestSide:
    """A side whose launches run this code."""

    class Impatient(PytestSide):
        STALL_S: ClassVar[float] = seconds

    words = [sys.executable, "-X", "faulthandler", "-c", code]
    variables = {"PYTHONPATH": str(CHECKOUT)}
    tree, folder = side.tree, side.folder / name
    return Impatient(name, side.commit, tree, folder, lambda number: words, variables, side.project, side.tests)


def test_a_side_that_hangs_is_ended_and_so_is_the_one_that_waits(
    side: PytestSide, capfd: pytest.CaptureFixture[str]
) -> None:
    both = [hanging(side, "base", WAITS, 4), hanging(side, "head", SLEEPS, 4)]
    codes, broken = sides.in_turns(both, 0)
    assert codes == [1, -signal.SIGABRT]
    assert broken == "the launch of head ended before its time"
    assert capfd.readouterr().err == "head has not taken its turn for 4 s, and is ended\n"
    assert 'File "<string>", line 1 in <module>' in (both[1].folder / side.OUTPUT).read_text()


def test_a_launch_that_hangs_alone_is_ended(side: PytestSide, capfd: pytest.CaptureFixture[str]) -> None:
    assert sides.one_by_one([hanging(side, "base", SLEEPS, 0.3)], 0) == [-signal.SIGABRT]
    assert "base has not ended within 0 s, and is ended\n" in capfd.readouterr().err


# Its command line


def read(folder: Path, table: str, *words: str) -> request.GateRequest:
    (folder / "pyproject.toml").write_text(table)
    return request.read(["base", "head", *words], folder=folder)


def test_options_stand_in_pyproject_and_the_command_line_goes_first(tmp_path: Path) -> None:
    found = read(tmp_path, TABLE)
    assert (found.pytest, found.words, found.pairs, found.strict) == (True, ["tests/perf"], 3, True)
    assert found.judged == ["--margin", "5%"]
    found = read(tmp_path, TABLE, "--budget", "1min", "--pytest", "tests", "-k", "not slow", "--pairs", "4")
    assert (found.words, found.pairs, found.budget_s) == (["tests", "-k", "not slow"], 4, 60)
    assert read(tmp_path, "[tool.resbench.gate]\npytest = 'tests'\n").words == ["tests"]
    assert read(tmp_path, "", "--pytest").words == []


@pytest.mark.parametrize(
    ("table", "words", "said"),
    [
        ("", (), "gate takes two commits"),
        ("[tool.resbench.gate]\npairs = 3\n", (), "gate takes two commits"),
        (TABLE, ("-k", "x"), "gate takes two commits"),
        ("[tool.resbench.gate]\nmagrin = '1%'\n", (), "magrin = '1%' in .* choose from: pytest, pairs, budget"),
        ("[tool.resbench.gate]\npytest = [1]\n", (), r"pytest in .* is \[1\]; write pytest = "),
        ("[tool.resbench.gate]\npytest = []\npairs = 1\n", (), "--pairs is '1'"),
        ("[tool.resbench]\ngate = 1\n", (), "gate is 1; write a table"),
        ("[tool", (), "pyproject.toml cannot be read: "),
    ],
)
def test_options_that_are_none_are_refused(table: str, words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        read(tmp_path, table, *words)


def test_a_project_without_pyproject_has_no_table(tmp_path: Path) -> None:
    assert project_table.read(tmp_path) == {}
