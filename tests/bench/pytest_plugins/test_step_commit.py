"""The commit in pytest-benchmark's JSON is that of the project that was measured."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.pytest_plugins.step import pytest_benchmark_update_commit_info
from reports.verdicts.pytest_benchmark import commit


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


FOUND = {"id": "f" * 40, "dirty": False, "time": "then", "author_time": "then", "branch": "theirs"}


def recorded(folder: Path, **found: Any) -> dict[str, Any]:
    """What the JSON says of tests in this folder, where pytest-benchmark found the hook's repository."""
    info: dict[str, Any] = FOUND | found
    pytest_benchmark_update_commit_info(SimpleNamespace(rootpath=folder), info)
    return info


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_it_is_the_project_s_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, other = tmp_path / "project", tmp_path / "other"
    for folder in (project, other):
        (folder / "tests").mkdir(parents=True)
        (folder / "tests" / "test_it.py").touch()
        git(folder, "init", "--quiet")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", folder.name)
    sha = git(project, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    unknown = dict.fromkeys(("time", "author_time", "branch"))
    assert recorded(project / "tests") == {"id": sha, "dirty": False, **unknown}
    (project / "result.json").touch()
    assert recorded(project / "tests", id=sha) == {**FOUND, "id": sha}
    (project / "tests" / "test_it.py").write_text("changed")
    assert recorded(project / "tests", id=sha) == {**FOUND, "id": sha, "dirty": True}
    assert recorded(project / "tests", id=sha, dirty=True)["dirty"], "what pytest-benchmark has seen"


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
@pytest.mark.parametrize("hook", [False, True])
def test_tests_that_are_in_no_commit_have_none(hook: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an archive, which lies nowhere or in another repository."""
    other = tmp_path / "other"
    for folder in (archive := tmp_path / "archive", inside := other / "archive"):
        folder.mkdir(parents=True)
    git(other, "init", "--quiet")
    git(other, "commit", "--quiet", "--allow-empty", "--message", "other")
    if hook:
        monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    nothing = {**dict.fromkeys(("time", "author_time", "branch")), "id": "unknown", "dirty": False}
    said = f"{archive} is in no git repository; run this in a checkout made with git clone"
    assert recorded(archive) == {**nothing, "error": said}
    said = f"{inside} is no part of the commit in {other}; commit it, or get it with git clone"
    assert recorded(inside) == {**nothing, "error": said}
    assert commit(recorded(inside)) == ""


def test_mercurial_s_commit_stays(tmp_path: Path) -> None:
    (tmp_path / ".hg").mkdir()
    assert recorded(tmp_path) == FOUND
