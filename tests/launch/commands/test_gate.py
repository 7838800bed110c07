"""Two commits of a small repository, whose launches take what a file in them says: the slower one is found."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from launching import Command, is_one_error, python, until
from planted_rows import plant

from bench.record.run_folder import RunFolder
from launch.cli import main
from launch.commands import gate
from reports import forms

# Stands in for a checkout's `python -m launch run`: appends a copy of a planted row, whose times are the commit's.
LAUNCH = """
import csv, datetime, pathlib, random, subprocess, sys, time
words = dict(zip(sys.argv, sys.argv[1:]))
factors = [float(word) for word in open("factors").read().split()]
pathlib.Path("ran.txt").open("a").write(" ".join(sys.argv[1:]) + "\\n")
head, row = csv.reader(open({template!r}))
out = pathlib.Path(words["--out"])
path = out / "trials.csv"
factor = factors[0] if int(words["--repeat"]) < 5 else factors[-1]
if factor < 0:  # a mean with a wide spread
    factor = -factor * (1.2 if int(words["--repeat"]) % 2 else 0.8)
now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
found = dict(zip(head, row))
found |= {{"launch_id": str(time.monotonic_ns()), "repeat": words["--repeat"], "started_at": now}}
found["commit"] = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True)[:12]
found["step_time_p50_s"] = str(0.01 * factor * (1 + random.uniform(-0.001, 0.001)))
new = not path.exists()
with path.open("a", newline="") as file:
    writer = csv.writer(file, lineterminator="\\n")
    writer.writerows(([head] if new else []) + [[found[name] for name in head]])
time.sleep(0.01)
"""


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.run(["git", *who, "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commits `same`, `slow`, `fast`, `once`, which is slow in the first half of the pairs alone, `later`, in the
    second alone, and `unsure`, whose second half tells nothing."""
    if not shutil.which("git"):
        pytest.skip("no git")
    (tmp_path / "template").mkdir()
    plant(tmp_path / "template", {})
    folder = tmp_path / "repository"
    (folder / "launch").mkdir(parents=True)
    (folder / "launch" / "__init__.py").touch()
    (folder / "launch" / "__main__.py").write_text(LAUNCH.format(template=str(tmp_path / "template" / "trials.csv")))
    git(folder, "init", "--quiet")
    for name, factors in (
        ("same", "1"),
        ("slow", "1.05"),
        ("fast", "0.9"),
        ("once", "1.05 1"),
        ("later", "1 1.05"),
        ("unsure", "1.05 -1.05"),
    ):
        (folder / "factors").write_text(factors)
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", name)
        git(folder, "tag", name)
    monkeypatch.setattr(gate, "REPOSITORY", folder)
    return folder


def told(repository: Path, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """(exit code, all that was printed) of a gate with the trials of one arm."""
    out = str(repository.parent / "gate")
    with pytest.raises(SystemExit) as ended:
        main(["gate", *words[:2], "resnet20_accumulation", *words[2:], "--pairs", "5", "--out", out])
    printed = capfd.readouterr()
    assert isinstance(ended.value.code, int)
    assert git(repository, "worktree", "list").count("\n") == 1, "a worktree is left"
    return ended.value.code, printed.out + printed.err


def rows(repository: Path, side: str) -> int:
    return len((repository.parent / "gate" / side / "trials.csv").read_text().splitlines()) - 1


@pytest.mark.parametrize("head", ["same", "later"])
def test_what_is_equal_at_the_first_look_passes(head: str, repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = told(repository, capfd, "same", head)
    assert code == 0
    assert "equivalent" in said
    assert "5 pairs" in said
    assert "5 more" not in said
    assert (rows(repository, "base"), rows(repository, "head")) == (5, 5)


def test_a_slower_commit_is_found_on_all_pairs(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = told(repository, capfd, "same", "slow")
    assert code == 1
    assert said.count("1 regressed") == 2
    assert said.count("that is for all 10 pairs to decide: 5 more") == 1
    assert "pair 10 of 10: " in said
    assert (rows(repository, "base"), rows(repository, "head")) == (10, 10)
    begun = sorted(
        (row["started_at"], side)
        for side in ("base", "head")
        for row in RunFolder(repository.parent / "gate" / side).rows("trials")
    )
    pairs = [tuple(side for _, side in begun[at : at + 2]) for at in range(0, 20, 2)]
    assert all(set(pair) == {"base", "head"} for pair in pairs)
    assert [pairs[at] == pairs[at + 1][::-1] for at in (0, 2, 5, 7)] == [True] * 4


@pytest.mark.parametrize("head", ["once", "unsure"])
def test_what_the_other_pairs_do_not_confirm_is_no_alarm_and_no_pass(
    head: str, repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said = told(repository, capfd, "same", head, "--fail-inconclusive")
    assert code == 4
    assert [said.count(part) for part in ("1 regressed", "5 more", "1 inconclusive")] == [1, 1, 1]


def test_what_cannot_be_told_fails_only_where_asked(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = told(repository, capfd, "same", "unsure")
    assert code == 0
    assert "1 inconclusive" in said


def test_what_is_not_committed_is_said_not_to_be_measured(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, said = told(repository, capfd, "same", "same")
    assert "uncommitted" not in said
    shutil.rmtree(repository.parent / "gate")
    (repository / "factors").write_text("2")
    _, said = told(repository, capfd, "same", "same")
    assert "uncommitted changes are in neither commit" in said


def test_paths_are_those_of_where_the_gate_was_asked(
    repository: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository.parent)
    (repository.parent / "own.pt").touch()
    given = ["--weights", "own.pt", "--data-root=images"]
    words = gate.read(["same", "same", "resnet20_accumulation", *given]).words
    assert words[1:] == ["--data-root", f"{repository.parent}/images", "--weights", f"{repository.parent}/own.pt"]
    words = gate.read(["same", "same", "resnet20_accumulation", "--weights", "IMAGENET1K_V1"]).words
    assert words[1:] == ["--data-root", f"{repository.parent}/data", "--weights", "IMAGENET1K_V1"]


def test_a_faster_commit_passes(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = told(repository, capfd, "same", "fast")
    assert code == 0
    assert "1 improved" in said


def test_the_last_look_is_written_in_the_forms_that_are_asked_for(
    repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = repository.parent / "gate.md"
    code, _ = told(repository, capfd, "same", "slow", "--markdown", str(out))
    assert code == 1
    assert "| 10 pairs | regressed |" in out.read_text()
    assert set(gate.FORMS) == {f"--{name.replace('_', '-')}" for name in forms.names()}


def test_a_margin_is_handed_on(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = told(repository, capfd, "same", "slow", "--margin", "10%")
    assert code == 0
    assert "margin of 0.1;" in said


REFUSED: list[tuple[list[str], str]] = [
    (["same"], "gate takes two commits"),
    (["same", "slow"], "gate takes two commits"),
    (["same", "slow", "--pairs", "3"], "gate takes two commits"),
    (["nowhere", "slow", "x"], "no commit 'nowhere'"),
    (["same", "--output=x", "x"], "gate takes two commits"),
    (["same", "slow", "x", "--pairs", "1"], "--pairs is '1'"),
    (["same", "slow", "x", "--pairs"], "--pairs needs a value"),
    (["same", "slow", "x", "--margin", "5", "--pairs", "3"], "argument --margin: '5' is no share"),
    (["same", "slow", "x", "--margin", "1%", "--margin", "2%"], "--margin is given 2 times"),
    (["same", "slow", "x", "--repeats", "3"], "gate decides --repeats itself"),
    (["same", "slow", "x", "--machines=2"], "gate decides --machines=2 itself"),
    (["same", "slow", "x", "--dry_run"], "gate decides --dry-run itself"),
    (["same", "slow", "study.toml"], "gate takes experiments and options, not a study file"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_what_cannot_be_is_one_sentence(
    words: list[str], said: str, repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["gate", *words])
    printed = capfd.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert printed.err.startswith("error: ")
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert git(repository, "worktree", "list").count("\n") == 1


def test_a_folder_in_use_is_left_as_it_is(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (repository.parent / "gate").mkdir()
    (repository.parent / "gate" / "mine").touch()
    code, said = told(repository, capfd, "same", "same")
    assert code == 2
    assert "is there already" in said
    assert [path.name for path in (repository.parent / "gate").iterdir()] == ["mine"]


def test_what_one_of_them_cannot_run_is_said(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (repository / "launch" / "__main__.py").write_text("import sys; sys.exit('error: no') if 0 else sys.exit(2)")
    git(repository, "commit", "--quiet", "--all", "--message", "broken")
    git(repository, "tag", "broken")
    code, said = told(repository, capfd, "same", "broken")
    assert code == 2
    assert "error: head cannot run this; see above" in said
    git(repository, "tag", "wrong", "broken")
    (repository.parent / "gate").rename(repository.parent / "former")
    assert told(repository, capfd, "wrong", "broken")[0] == 2
    assert list((repository.parent / "gate").iterdir()) == [], "in the way of the next gate"


def test_a_real_launch_that_is_stopped_leaves_its_row_and_no_worktree(tmp_path: Path) -> None:
    """This checkout's own commit."""
    words: list[Any] = ["--arm", "16x1", "--model", "resnet8", "--data", "digits", "--limit-train", "64"]
    words += ["--limit-eval", "50", "--epochs", "100000", "--no-checkpoint", "--out", str(tmp_path / "gate")]
    done = python("-m", "launch", "gate", "HEAD", "no-such-commit", "resnet20_accumulation", *words)
    if "no commit 'HEAD'" in done.stderr:
        pytest.skip("this is no git checkout")
    assert is_one_error(done)
    before = git(gate.CHECKOUT, "worktree", "list")
    with Command(["-m", "launch", "gate", "HEAD", "HEAD", "resnet20_accumulation", *words], tmp_path) as command:
        until(lambda: list((tmp_path / "gate").glob("*/epochs.csv")), "training to begin")
        command.interrupt()
        assert command.wait() == 130
        assert command.left() == []
        assert "Traceback" not in command.stderr.read_text()
    (trials,) = (tmp_path / "gate").glob("*/trials.csv")
    assert ",interrupted," in trials.read_text()
    assert git(gate.CHECKOUT, "worktree", "list") == before
