"""Requests that cannot be met: one sentence, exit code 2, and nothing begun or left behind."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from launching import SMALL, is_one_error, python

from bench.failure.causes import Interrupted
from launch import cli as launching
from launch.commands import run

RUN = ["-m", "launch", "run", "resnet20_accumulation"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lst"], "no command 'lst'"),
        (["list", "all"], "list: unrecognized arguments: all; see python -m launch list --help"),
        (["env", "all"], "env: unrecognized arguments: all; see python -m launch env --help"),
        (["run"], "resnet152_frozen"),
        (["run", "--arm", "16x8"], "resnet152_frozen"),
        (["run", "resnt20"], "no experiment 'resnt20'"),
        (["run", "resnet20_accumulation", "--arm"], "--arm has no value; python -m launch list names the arms"),
        (["run", "resnet20_accumulation", "--arm", "16x8", "--arm", "64x1"], "--arm is given twice; give it once"),
        (["run", "resnet20_accumulation", "--arm", "16x9"], "no arm '16x9'"),
        (["run", "resnet20_accumulation", "--micro", "16"], "--micro-batch"),
        (["run", "resnet20_accumulation", "--micro-batch", "0"], "--micro-batch is 0"),
        (["run", "resnet20_accumulation", "--micro-batch", "sixteen"], "'sixteen'"),
        (["run", "resnet20_accumulation", "--lr", "nan"], "--lr is nan"),
        (["run", "resnet20_accumulation", "--precision", "fp16"], "fp16"),
        (["run", "resnet20_accumulation", "--weights", "no/such.pt"], "'no/such.pt'"),
        (["run", "resnet20_accumulation", "--data", "mnist"], "mnist"),
        (["run", "resnet20_accumulation", "--model", "resnet9000"], "'resnet9000'"),
    ],
)
def test_a_wrong_word_is_named_and_nothing_is_begun(words: list[str], said: str, tmp_path: Path) -> None:
    out = [] if words[0] != "run" or len(words) < 2 else ["--out", str(tmp_path / "runs")]
    done = python("-m", "launch", *words, *out)
    assert is_one_error(done), done.stderr
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_trial_among_good_ones_stops_them_all_before_the_first(tmp_path: Path) -> None:
    done = python(*RUN, "--micro-batch", "16,32,-1", "--out", str(tmp_path / "runs"))
    assert is_one_error(done), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    """Not by its permissions, which root need not heed."""
    (tmp_path / "file").write_text("kept")
    for out in (tmp_path / "file", tmp_path / "file" / "runs", Path("/proc/runs")):
        done = python(*RUN, "--out", str(out))
        assert is_one_error(done), done.stderr
        assert str(out) in done.stderr
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = python(*RUN, "--out", str(tmp_path / "runs"))
    assert is_one_error(done), done.stderr


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "launch_id,status\nx,ok\n", "no table at all\n", "\0\0\0\n"])
@pytest.mark.parametrize("file", ["trials", "epochs", "steps"])
def test_a_folder_with_other_columns_is_refused_before_training(tmp_path: Path, file: str, content: str) -> None:
    path = tmp_path / f"{file}.csv"
    path.write_text(content)
    done = python(*RUN, "--arm", "16x8", *SMALL, "--out", str(tmp_path))
    assert is_one_error(done), done.stderr
    assert str(path) in done.stderr
    assert path.read_text() == content


def test_a_full_disk_is_refused_before_training(tmp_path: Path) -> None:
    """No file may grow beyond 4 KiB here: the same error, in another word, as a full disk, and needs no root."""

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = python(*RUN, "--out", str(tmp_path / "runs"), preexec_fn=full)
    assert is_one_error(done), done.stderr
    assert str(tmp_path / "runs") in done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.fixture(scope="module")
def without_accelerate(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A Python that has every package of this one but accelerate."""
    folder = tmp_path_factory.mktemp("packages")
    for place in map(Path, sys.path):
        if place.name in ("site-packages", "dist-packages"):
            for package in place.iterdir():
                if not package.name.startswith("accelerate") and not (folder / package.name).exists():
                    (folder / package.name).symlink_to(package)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    # -S: no site-packages; and the variable takes their place.
    return ["env", f"PYTHONPATH={path}", sys.executable, "-S"]


def test_a_python_without_accelerate_is_told_so(without_accelerate: list[str], tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*without_accelerate, *words], capture_output=True, text=True, check=False)

    assert run("-c", "import tyro, rich, psutil").returncode == 0, "the stand-in lacks more than accelerate"
    done = run(*RUN, "--out", str(tmp_path / "runs"))
    assert is_one_error(done), done.stderr
    assert "accelerate is not installed" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert run("-m", "launch", "list").returncode == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("stopped by SIGTERM")], ids=repr)
@pytest.mark.parametrize("where", ["arguments", "run"])
def test_an_interruption_before_the_first_trial_says_that_nothing_had_started(
    error: BaseException,
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*given: object, **named: object) -> None:
        raise error

    if where == "arguments":
        monkeypatch.setattr(run, "arguments", interrupted)
    else:
        monkeypatch.setattr(run.checks, "check", interrupted)
    with pytest.raises(SystemExit) as ended:
        launching.main(["run", "resnet20_accumulation", "--out", str(tmp_path / "runs")])
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted: nothing had started\n")
    assert list(tmp_path.iterdir()) == []
