"""The files in examples/, as a user runs them: from an empty folder elsewhere, and looked at there."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT
from launching import python, rows
from own_project import SHORT, commit, gate, git
from planted_rows import plant

from reports import cli

EXAMPLES = CHECKOUT / "examples"
FILES = sorted(EXAMPLES.rglob("*.py"))
TINY = ("--limit-train", "96", "--limit-eval", "32", "--epochs", "1", "--warmup-windows", "0")


def reports(*words: str | Path) -> int:
    """The exit code of `python -m reports`."""
    try:
        cli.main([str(word) for word in words])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_fits_on_a_page(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60


def test_a_study_of_one_s_own_runs_and_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, out = tmp_path / "empty", tmp_path / "empty" / "runs" / "stripes"
    empty.mkdir()
    study = str(EXAMPLES / "stripes.py")
    words = ["-m", "resbench", "run", study, "--arm", "wide,wide_slow", *TINY, "--out", "runs/stripes"]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}  # what `resbench run` is, of this checkout
    done = subprocess.run([sys.executable, *words], cwd=empty, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in empty.iterdir()] == ["runs"]
    found = rows(out, "trials")
    assert [(row["status"], row["arm"], row["data"], row["model"]) for row in found] == [
        ("ok", arm, "own", "own") for arm in ("wide", "wide_slow")
    ]
    assert {int(row["total_parameters"]) for row in found} == {3 * 16 * 9 + 16 + 2 * 16 + 2 * 16 + 2}
    assert {row["train_images"] for row in found} == {"96"}
    assert {row["class_name"] for row in rows(out, "per_class")} == {"upright", "level"}
    assert reports("show", out) == 0
    shown = capsys.readouterr().out
    assert f"experiment_hash {found[0]['experiment_hash']}, model own, weights none, data own" in shown
    # Both arms in one table: they are about lr.
    assert [line.strip() for line in shown.splitlines()].count("stripes") == 1
    assert reports("page", out, "-o", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "How wide must a network of two layers be" in page
    # Against a second run, here of equal rows, and against one of another version of the file.
    own = found[0]["experiment_hash"]
    assert reports("compare", out, second(out, tmp_path / "again")) in (0, 1)
    assert reports("compare", out, second(out, tmp_path / "other", own, "0123456789ab")) == 3
    assert f"not comparable: experiment_hash {own} against 0123456789ab" in capsys.readouterr().out


def test_the_study_on_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    page = (CHECKOUT / "docs" / "own-project.md").read_text()
    (content,) = re.findall(r"^`my_study\.py`:\n\n```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "my_study.py").write_text(content)
    words = ["-m", "resbench", "run", "./my_study.py", *TINY, "--out", "runs"]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [(row["status"], row["arm"], row["model"], row["data"]) for row in rows(tmp_path / "runs", "trials")]
    assert found == [("ok", arm, "own", "digits") for arm in ("narrow", "wide")]


def second(run: Path, folder: Path, old: str = "", new: str = "") -> Path:
    """A run folder with the trials of this one under other launch ids, and with another text in a cell."""
    text = (run / "trials.csv").read_text()
    for row in rows(run, "trials"):
        text = text.replace(row["launch_id"], row["launch_id"][:-1] + "x")
    folder.mkdir()
    (folder / "trials.csv").write_text(text.replace(old, new) if old else text)
    return folder


def test_the_gate_finds_the_slower_step_of_a_project_that_is_not_ours(tmp_path: Path) -> None:
    if not shutil.which("git"):
        pytest.skip("no git")
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / "gate", project, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    git(project, "init", "--quiet")
    step = (project / "my_training.py").read_text()
    commit(project, "base", {"tests/perf/conftest.py": SHORT})
    one = "    loss.backward()\n"
    slower = step.replace(one, "    for _ in range(3):\n        model(images)\n" + one)
    assert slower != step
    commit(project, "head", {"my_training.py": slower})
    code, said = gate(project, "base", "head", "--pairs", "3", "--markdown", "gate.md")
    assert code == 1, said
    assert "operations_per_window" in said, "what differs is named"
    assert "regressed" in said
    summary = (project / "gate.md").read_text()
    assert "tests/perf/test_training_step.py::test_train_step[32]" in html.unescape(summary)


def test_trials_are_read_and_drawn_without_the_suite(tmp_path: Path) -> None:
    equal = {"arm": "16x8", "trial_key": "1234567890e1", "precision": "bf16"}
    launches = [equal | {"images_per_s": number} for number in (100.0, 300.0, 200.0)]
    plant(tmp_path, *launches, {"arm": "128x1", "trial_key": "b", "images_per_s": 500.0}, {"status": "oom"})
    words = str(EXAMPLES / "read_trials.py"), str(tmp_path), str(tmp_path / "memory.svg")
    done = python(*words, env={"PYTHONPATH": None})  # the suite cannot be imported so
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[:2] == [["ok", "4"], ["oom", "1"]]
    found = {line[-8]: line[-4:] for line in lines[3:]}
    assert found["16x8"] == ["3", "200.0", str(9.0 * 2**28), str(float(2**29))], "the median of its launches"
    assert found["128x1"][:2] == ["1", "500.0"]
    drawn = (tmp_path / "memory.svg").read_text()
    assert "GPU memory reserved, GiB" in drawn
    assert "NVIDIA H100" in drawn
