"""A wheel, installed alone in an environment of its own: one command, whose folders collide with nobody's names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import CHECKOUT
from launching import is_one_error, rows

PARTS = ("bench", "models", "launch", "reports", "resbench", "pyproject.toml", "setup.py", "README.md", "LICENSE")
VERSION = re.findall(r'^version = "(.+)"$', (CHECKOUT / "pyproject.toml").read_text(), re.MULTILINE)[0]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
ALONE = ["--no-deps", "--no-build-isolation", "--no-index"]


def done(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)


def well(words: list[str], folder: Path) -> str:
    ended = done(words, folder)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel is built of, committed."""
    folder = tmp_path_factory.mktemp("source")
    for name in PARTS:
        part = CHECKOUT / name
        if part.is_dir():
            shutil.copytree(part, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(part, folder)
    shutil.copy(CHECKOUT / ".gitignore", folder)
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "x"]):
        well(["git", "-c", "user.name=x", "-c", "user.email=x@localhost", *words], folder)
    return folder


@pytest.fixture(scope="module")
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment that it is installed in; the packages of this one, torch among them, stand behind its own."""
    folder = tmp_path_factory.mktemp("environment")
    well([*PIP, "wheel", *ALONE, "--wheel-dir", str(folder), str(source)], folder)
    (wheel,) = folder.glob("*.whl")
    well([sys.executable, "-m", "venv", "--without-pip", "own"], folder)
    well([*PIP, "--python", str(folder / "own/bin/python"), "install", *ALONE, str(wheel)], folder)
    (packages,) = folder.glob("own/lib/python*/site-packages")
    assert sorted(path.name for path in packages.iterdir()) == ["resbench", f"resbench-{VERSION}.dist-info"]
    (packages / "theirs.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "own"


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder in which whoever imports by our names runs another's files."""
    for name in ("bench", "launch", "models", "reports", "start", "resbench"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'a').write({name!r})\n")
    return tmp_path


def test_one_command_has_all_that_the_checkout_has_and_takes_no_file_of_the_current_folder(
    installed: Path, trap: Path
) -> None:
    resbench = str(installed / "bin" / "resbench")
    shown = well([resbench, "--help"], trap)
    commands = {line.split()[0] for line in shown.splitlines() if line.startswith("  ")}
    files = [path for folder in ("launch", "reports") for path in (CHECKOUT / folder / "commands").glob("[!_]*.py")]
    assert commands == {"completion", *(path.stem for path in files)}
    assert "\n  gate exact " in shown
    assert "usage: resbench plan EXPERIMENT" in well([resbench, "plan", "--help"], trap)
    assert "counts of a run" in well([resbench, "gate", "exact", "--help"], trap)
    small = ["--arm", "16x1", "--model", "resnet8", "--data", "synthetic", "--image-size", "8", "--device", "cpu"]
    planned = ["plan", "resnet20_accumulation", *small, "--effective-batch", "4", "--memory-limit", "1GiB"]
    assert "choose 4x1" in well([resbench, *planned, "--out", "planned"], trap)
    started = well([resbench, "run", "dropout", "--preset", "mini", "--device", "cpu", "--dry-run"], trap)
    start = str(next(installed.glob("lib/python*/site-packages/resbench/start.py")))
    assert f"{start} accelerate.commands.launch" in started  # -m would look in the current folder first
    assert f" {start} bench.experiments.dropout --arm" in started
    assert " -m " not in started
    assert not (trap / "sprung").exists()


def test_a_trial_of_a_checkout_takes_no_file_of_the_current_folder_either(
    trap: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script = tmp_path_factory.mktemp("bin") / "resbench"  # as an editable install's
    script.write_text(f"import sys\nsys.path.append({str(CHECKOUT)!r})\nfrom resbench import main\nmain()\n")
    small = ["--arm", "16x1", "--model", "resnet8", "--data", "synthetic", "--image-size", "8", "--device", "cpu"]
    small += ["--limit-train", "32", "--limit-eval", "8", "--warmup-windows", "0"]
    well([sys.executable, str(script), "run", "resnet20_accumulation", *small, "--out", "ran"], trap)
    assert [row["status"] for row in rows(trap / "ran", "trials")] == ["ok"]
    refused = done([sys.executable, str(script), "show", ".", "--nothing"], trap)
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: show has no option '--nothing'; see resbench show --help\n",
    )
    assert not (trap / "sprung").exists()


def test_none_of_its_folders_can_be_imported_by_others(installed: Path, tmp_path: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('bench', 'models', 'launch', 'reports') if u.find_spec(n)])"
    assert well([str(installed / "bin" / "python"), "-c", code], tmp_path).strip() == "[]"


def test_it_knows_its_version_and_the_commit_it_was_built_of(installed: Path, source: Path, tmp_path: Path) -> None:
    (folder,) = installed.glob("lib/python*/site-packages/resbench")
    commit = well(["git", "rev-parse", "HEAD"], source).strip()
    built = json.loads((folder / "built.json").read_text())
    assert built == {"version": VERSION, "commit": commit, "clean": True}
    code = "from bench.machine import environment as e; m = e.machine(); print(m['commit'], m['resbench'])"
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"
    assert well([str(installed / "bin" / "python"), "-c", start], tmp_path).split() == [commit[:12], VERSION]


def test_what_compares_commits_says_that_it_needs_a_checkout(installed: Path, tmp_path: Path) -> None:
    for command in ("gate", "bisect"):
        ended = done([str(installed / "bin" / "resbench"), command, "a", "b", "dropout"], tmp_path)
        assert is_one_error(ended), ended.stderr
        assert f"{command} compares commits of a git checkout of resbench" in ended.stderr


def test_the_commit_is_that_of_the_folder_itself_or_none(source: Path, tmp_path: Path) -> None:
    code = "import setuptools; setuptools.setup = lambda **words: None; import setup; print(setup.commit())"
    (source / "new.txt").write_text("x")
    assert "'clean': False" in well([sys.executable, "-c", code], source)
    (source / "new.txt").unlink()
    inside = source / "build" / "unpacked"  # in another repository, which is none of its own
    inside.mkdir(parents=True)
    shutil.copy(source / "setup.py", inside)
    assert well([sys.executable, "-c", code], inside).strip() == "{'commit': None, 'clean': None}"
