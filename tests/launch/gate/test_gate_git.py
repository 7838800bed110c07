"""Where git does not work, or a commit is not the one that was meant, the gate ends with 2, never with a verdict."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from planted_rows import MACHINE, plant

from bench.errors import UsageError
from launch.cli import main
from launch.commands import gate
from launch.gate import measure
from launch.gate.sides import Side


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits, base and head, in which there is nothing that could be run."""
    if not shutil.which("git"):
        pytest.skip("no git")
    folder = tmp_path / "repository"
    (folder / "inside").mkdir(parents=True)
    command = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*command, "init", "--quiet"], check=True)
    for name in ("base", "head"):
        subprocess.run([*command, "commit", "--quiet", "--allow-empty", "--message", name], check=True)
        subprocess.run([*command, "tag", name], check=True)
    monkeypatch.setattr(gate, "REPOSITORY", folder)
    return folder


def told(capfd: pytest.CaptureFixture[str], folder: Path, *refs: str) -> str:
    """What the gate prints. It must end with 2."""
    with pytest.raises(SystemExit) as ended:
        main(["gate", *refs, "resnet20_accumulation", "--out", str(folder / "gate")])
    assert ended.value.code == 2
    return capfd.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PATH", "/nowhere", "there is no git on PATH"),
        ("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1", "git config --global --add safe.directory"),
        ("GIT_CONFIG_COUNT", "many", "bogus count in GIT_CONFIG_COUNT"),
    ],
)
@pytest.mark.usefixtures("repository")
def test_what_git_refuses_is_one_sentence(
    variable: str,
    value: str,
    said: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    printed = told(capfd, tmp_path, "base", "head")
    assert said in printed
    assert printed.count("\n") == 1


def test_a_copy_inside_another_repository_is_not_taken_for_it(
    repository: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "REPOSITORY", repository / "inside")
    printed = told(capfd, tmp_path, "base", "head")
    assert printed.startswith(f"error: {repository / 'inside'} is no git checkout, but a folder of the one in")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("head", ["head", "base"])
@pytest.mark.usefixtures("repository")
def test_the_same_commit_twice_is_said(head: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    printed = told(capfd, tmp_path, "base", head)
    assert printed.count("both are commit") == (head == "base")
    assert "cannot run this; see above" in printed


@pytest.mark.parametrize(
    ("commit", "said"),
    [
        (MACHINE["commit"], None),
        ("f" * 12, "f" * 12),
        (f"{MACHINE['commit']}-dirty", "-dirty"),
        (None, "an unknown commit"),
    ],
    ids=["as meant", "another", "changed", "unknown"],
)
def test_only_rows_of_the_commit_that_was_meant_are_judged(
    commit: str | None, said: str | None, tmp_path: Path
) -> None:
    plant(tmp_path, {"commit": commit})
    side = Side("head", MACHINE["commit"].ljust(40, "0"), tmp_path, tmp_path, lambda number: [], {})
    if said is None:
        measure.check([side], side, 0)
    else:
        with pytest.raises(UsageError, match=f"head is {MACHINE['commit']}, but what ran is .*{said}$"):
            measure.check([side], side, 0)
