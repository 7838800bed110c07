"""Two commits of a small repository, whose launches take what a file in them says: the slower one is found."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from in_process import judge_in_process
from launching import Command, is_one_error, python, until
from planted_rows import plant

from bench.machine.environment import CHECKOUT
from bench.record.run_folder import RunFolder
from launch.cli import main
from launch.commands import gate
from launch.gate import request
from reports import forms

# Stands in for a checkout's `python -m launch run`: appends a copy of a planted row, whose times are the commit's, by
# the file `factors`. If the commit can take turns, it takes some and writes their times.
LAUNCH = """
import csv, datetime, os, pathlib, random, subprocess, sys, time, uuid
words = dict(zip(sys.argv, sys.argv[1:]))
factor = open("factors").read()
pathlib.Path("ran.txt").open("a").write(" ".join(sys.argv[1:]) + "\\n")
head, row = csv.reader(open({template!r}))
out = pathlib.Path(words["--out"])
now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
found = dict(zip(head, row))
found |= {{"launch_id": uuid.uuid4().hex[:12], "repeat": words["--repeat"], "started_at": now}}
found["commit"] = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True)[:12]

def write(name, row, newline=""):
    new = not (out / name).exists()
    with (out / name).open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\\n")
        writer.writerows(([list(row)] if new else []) + [list(row.values())])

def broken():
    found.update(status="crashed", error="planted")
    write("trials.csv", found)
    sys.exit(1)

if factor == "broken":
    broken()
if factor == "refused":
    sys.exit(2)
noise = 0.001
if factor == "unsure":  # a mean with a wide spread
    factor = 1.05 * (1.2 if int(words["--repeat"]) % 2 else 0.8)
fails = factor == "fails"
factor = 1.0 if fails else float(factor)
found["step_time_p50_s"] = str(0.01 * factor * (1 + random.uniform(-noise, noise)))
found["step_cpu_time_p50_s"] = found["step_time_p50_s"]
if os.environ.get("RESBENCH_TURNS"):
    from bench.instruments.turns import Turns, TurnsEnded
    try:
        turns = Turns(os.environ["RESBENCH_TURNS"])
        turns.begin(found["launch_id"], open("settings").read())
        found["turns_with"] = turns.partners[0]
        for number in range(20):
            if fails and number == 7:
                broken()
            time_s = 0.01 * factor * (1 + random.uniform(-noise, noise))
            step = {{"launch_id": found["launch_id"], "epoch": 0, "window": number, "images": 16, "measured": "true"}}
            write("steps.csv", step | {{"turn": turns.number, "step_time_s": time_s, "cpu_time_s": time_s}})
            turns.hand_over(0.02)
        turns.leave()
        # Other launches saw another machine: what they say as a whole is of no use.
        found["step_time_p50_s"] = str(float(found["step_time_p50_s"]) * random.choice([1, 2, 3, 4]))
    except TurnsEnded as error:
        found.update(status="interrupted", error=str(error))
        write("trials.csv", found)
        sys.exit(130)
write("trials.csv", found)
time.sleep(0.01)
"""


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.run(["git", *who, "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout


# Commits that take turns, and two that do not know how to: `old`, and `old slow`.
COMMITS = {
    "same": "1",
    "slow": "1.05",
    "fast": "0.9",
    "unsure": "unsure",
    "fails": "fails",
    "broken": "broken",
    "refused": "refused",
}
OLD = {"old": "1", "old-slow": "1.05", "old-unsure": "unsure"}
NEEDED = ("bench/instruments/turns.py", "bench/variables.py")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a tag for each of the above, and `other`, whose trial has other settings."""
    if not shutil.which("git"):
        pytest.skip("no git")
    above = tmp_path_factory.mktemp("planted")
    (above / "template").mkdir()
    plant(above / "template", {})
    folder = above / "repository"
    (folder / "launch").mkdir(parents=True)
    (folder / "launch" / "__init__.py").touch()
    (folder / "launch" / "__main__.py").write_text(LAUNCH.format(template=str(above / "template" / "trials.csv")))
    (folder / "settings").write_text("these")
    git(folder, "init", "--quiet")

    def commit(name: str) -> None:
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--allow-empty", "--message", name)
        git(folder, "tag", name)

    for name, factors in OLD.items():
        (folder / "factors").write_text(factors)
        commit(name)
    for name in NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, folder / name)
    for name, factors in COMMITS.items():
        (folder / "factors").write_text(factors)
        commit(name)
    (folder / "factors").write_text("1")
    (folder / "settings").write_text("others")
    commit("other")
    return folder


@pytest.fixture
def cloned(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of it, in a folder of its own."""
    folder = tmp_path / "repository"
    git(planted, "clone", "--quiet", str(planted), str(folder))
    monkeypatch.setattr(gate, "REPOSITORY", folder)
    return folder


@pytest.fixture
def repository(cloned: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, whose commits are judged in this process; with `cloned` in its place, as a user's are."""
    judge_in_process(monkeypatch)
    return cloned


def told(repository: Path, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """(exit code, all that was printed) of a gate with the trials of one arm."""
    out = str(repository.parent / "gate")
    with pytest.raises(SystemExit) as ended:
        main(["gate", *words[:2], "resnet20_accumulation", *words[2:], "--pairs", "12", "--out", out])
    printed = capfd.readouterr()
    assert isinstance(ended.value.code, int)
    assert git(repository, "worktree", "list").count("\n") == 1, "a worktree is left"
    return ended.value.code, printed.out + printed.err


def rows(repository: Path, side: str) -> int:
    return len((repository.parent / "gate" / side / "trials.csv").read_text().splitlines()) - 1


def test_what_is_equal_passes_at_the_first_look(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Though launches as wholes differ by up to four times: their turns do not."""
    code, said = told(repository, capfd, "same", "same")
    assert code == 0
    assert said.count("equivalent") >= 2
    assert "3 pairs" in said
    assert "inconclusive" not in said
    assert (rows(repository, "base"), rows(repository, "head")) == (3, 3)


def test_a_slower_commit_is_found_at_the_first_look(cloned: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And that look, which is the last one, is written in the forms that are asked for."""
    out = cloned.parent / "gate.md"
    code, said = told(cloned, capfd, "same", "slow", "--markdown", str(out))
    assert code == 1
    assert "3 regressed" in said  # step time, its CPU time, throughput
    assert re.search(r"step_time_p50_s .* \+(4\.[89]|5\.[0-2])\d ", said), "a planted 5%"
    assert (rows(cloned, "base"), rows(cloned, "head")) == (3, 3)
    assert "| 3 pairs in turns | regressed |" in out.read_text()
    assert set(request.FORMS) == {f"--{name.replace('_', '-')}" for name in forms.names()}


def test_what_is_inconclusive_gets_more_pairs(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = told(repository, capfd, "same", "unsure", "--fail-inconclusive")
    assert code == 4
    assert [f"after {pairs} pairs this is inconclusive" in said for pairs in (3, 6, 12)] == [True, True, False]
    assert "12 pairs" in said
    assert said.count("a pair takes about") == 1
    assert "all 12 pairs are run, and they cannot tell; more pairs tell more\n" in said
    assert "inconclusive fails, since --fail-inconclusive was given\n" in said
    assert (rows(repository, "base"), rows(repository, "head")) == (12, 12)


def test_what_cannot_be_told_fails_only_where_asked(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = told(repository, capfd, "same", "unsure", "--budget", "0.1s")
    assert code == 0
    assert said.count("longer than the budget of 0.1s; at least three are run\n") == 1
    used = "the budget of 0.1s is used: 3 of at most 12 pairs, which cannot tell; a longer --budget tells more\n"
    assert said.endswith(used + "inconclusive passes; with --fail-inconclusive it would fail\n")
    assert rows(repository, "base") == 3, "the time is up"


@pytest.mark.parametrize("head", ["fails", "broken"])
def test_a_side_that_fails_ends_the_pair(head: str, repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In its seventh turn, after which it ends well alone; or always, before its first."""
    code, said = told(repository, capfd, "same", head)
    assert code == (1 if head == "broken" else 0)
    assert bool(re.search(r"^\d+ regressed", said, re.MULTILINE)) == (head == "broken")
    assert "the launch of head ended before its time: one more launch of each, alone" in said
    assert f"{1 + (head == 'broken')} of 2 launches in HEAD failed, 0 of 1 in BASE; crashed: planted" in said
    base, other = (RunFolder(repository.parent / "gate" / side).rows("trials") for side in ("base", "head"))
    assert [row["status"] for row in base] == ["interrupted", "ok"]
    assert base[0]["error"] == "the launch of head ended before its time"
    assert [row["status"] for row in other] == ["crashed", "crashed" if head == "broken" else "ok"]


def test_a_commit_that_knows_no_turns_is_compared_launch_by_launch(
    repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said = told(repository, capfd, "old", "same")
    assert code == 0
    assert "in turns" not in said
    assert "a commit is older than taking turns: launch by launch" in said
    begun = sorted(
        (row["started_at"], side)
        for side in ("base", "head")
        for row in RunFolder(repository.parent / "gate" / side).rows("trials")
    )
    pairs = [tuple(side for _, side in begun[at : at + 2]) for at in range(0, len(begun), 2)]
    assert all(set(each) == {"base", "head"} for each in pairs)
    assert all(one == other[::-1] for one, other in zip(pairs[::2], pairs[1::2], strict=False))
    assert f"{len(pairs)} pairs" in said  # as the gate has recorded, though the old commit knows nothing of it
    recorded = [
        [row["round"] for row in RunFolder(repository.parent / "gate" / side).rows("rounds")]
        for side in ("base", "head")
    ]
    assert recorded[0] == recorded[1]
    assert len(set(recorded[0])) == len(pairs)


def test_launch_by_launch_a_slower_commit_is_found_as_well(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = told(repository, capfd, "old", "old-slow")
    assert code == 1
    assert "regressed" in said


def test_other_settings_are_compared_launch_by_launch(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = told(repository, capfd, "same", "other")
    assert code == 0
    assert "the sides have other settings: launch by launch" in said
    assert all(row["status"] == "ok" for row in RunFolder(repository.parent / "gate" / "base").rows("trials"))


def test_what_is_not_committed_is_said_not_to_be_measured(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, said = told(repository, capfd, "same", "refused")
    assert "uncommitted" not in said
    (repository / "factors").write_text("2")
    _, said = told(repository, capfd, "same", "refused")
    assert "uncommitted changes are in neither commit" in said


def test_paths_are_those_of_where_the_gate_was_asked(
    repository: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository.parent)
    (repository.parent / "own.pt").touch()
    given = ["--preset", "mini", "--checkpoint", "--weights", "own.pt", "--data-root=images"]
    words = request.read(["same", "same", "resnet20_accumulation", *given]).words
    assert words[4:] == ["--data-root", f"{repository.parent}/images", "--weights", f"{repository.parent}/own.pt"]
    given = ["--preset", "mini", "--checkpoint", "--weights", "IMAGENET1K_V1"]
    words = request.read(["same", "same", "resnet20_accumulation", *given]).words
    assert words[4:] == ["--data-root", f"{repository.parent}/data", "--weights", "IMAGENET1K_V1"]


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ([], ["--epochs", "1", "--limit-windows", "100", "--limit-eval", "200", "--no-checkpoint"]),
        (["--limit-eval=7"], ["--epochs", "1", "--limit-windows", "100", "--no-checkpoint"]),
        (["--epochs", "3"], ["--no-checkpoint"]),
        (["--limit_train", "3", "--checkpoint"], []),
        (["--seeds", "8"], ["--no-checkpoint"]),  # an accuracy is that of the whole training
    ],
)
def test_launches_are_short_unless_told_otherwise(given: list[str], own: list[str]) -> None:
    words = request.read(["same", "same", "resnet20_accumulation", *given, "--data-root", "/data"]).words
    dashed = [word.replace("_t", "-t") for word in given if "--seeds" not in given]
    assert words == ["resnet20_accumulation", *dashed, "--data-root", "/data", *own]


def test_a_faster_commit_passes(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = told(repository, capfd, "same", "fast")
    assert code == 0
    assert "3 improved" in said


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
    (["same", "slow", "x", "--pairs", "2"], "--pairs is '2'; give 3 or more"),
    (["same", "slow", "x", "--budget", "soon"], "--budget is 'soon'; give a time such as 5min"),
    (["same", "slow", "x", "--budget", "5"], "--budget is '5', without a unit; give s, min or h, such as 5min"),
    (["same", "slow", "x", "--pytest", "tests/perf"], "--pytest stands in place of an experiment; leave x out"),
    (["same", "slow", "x", "y", "--arm=a", "--pytest"], "--pytest stands in place of an experiment; leave x y out"),
    (["same", "slow", "x", "--fail-fast"], "gate decides --fail-fast itself"),
    (["same", "slow", "x", "--pairs"], "--pairs has no value; give one"),
    (["same", "slow", "x", "--seeds", "2"], "--seeds is '2'; give 3 or more"),
    (["same", "slow", "x", "--seeds", "8", "--pairs", "8"], "leave --pairs out"),
    (["same", "slow", "x", "--seeds", "8", "--seed", "1"], "leave --seed out"),
    (["same", "slow", "x", "--accuracy-margin", "1"], "give --seeds"),
    (["same", "slow", "x", "--seeds", "8", "--accuracy-margin", "200"], "'200' is no number of percentage points"),
    (["same", "slow", "x", "--margin", "5", "--pairs", "3"], "--margin: '5' is no share"),
    (["same", "slow", "x", "--margin", "1%", "--margin", "2%"], "--margin is given twice"),
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


def test_the_same_command_can_be_run_again(
    repository: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository.parent)
    runs = repository.parent / "runs"
    (runs / "gate-2").mkdir(parents=True)
    (runs / "gate-2" / "mine").touch()
    for said in ("", f"{runs / 'gate'} is there already: this gate goes to {runs / 'gate-3'}\n"):
        with pytest.raises(SystemExit) as ended:
            main(["gate", "same", "same", "resnet20_accumulation", "--pairs", "3"])
        assert ended.value.code == 0
        err = capfd.readouterr().err
        assert (said in err) if said else ("is there already" not in err)
    assert [len(RunFolder(runs / name / "head").rows("trials")) for name in ("gate", "gate-3")] == [3, 3]
    assert [path.name for path in (runs / "gate-2").iterdir()] == ["mine"]


def test_what_one_of_them_cannot_run_is_said(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = told(repository, capfd, "same", "refused")
    assert code == 2
    assert "error: head cannot run this; see above" in said
    assert list((repository.parent / "gate").iterdir()) == [], "in the way of the next gate"
    code, said = told(repository, capfd, "refused", "same")
    assert code == 2
    assert "error: base cannot run this; see above" in said


def test_a_real_launch_that_is_stopped_leaves_its_row_and_no_worktree(tmp_path: Path) -> None:
    """This checkout's own commit."""
    words: list[Any] = ["--arm", "16x1", "--model", "resnet8", "--data", "digits", "--limit-train", "64"]
    words += ["--limit-eval", "50", "--epochs", "100000", "--no-checkpoint", "--out", str(tmp_path / "gate")]
    done = python("-m", "launch", "gate", "HEAD", "no-such-commit", "resnet20_accumulation", *words)
    if "no commit 'HEAD'" in done.stderr:
        pytest.skip("this is no git checkout")
    assert is_one_error(done)
    before = worktree_folders()
    with Command(["-m", "launch", "gate", "HEAD", "HEAD", "resnet20_accumulation", *words], tmp_path) as command:
        until(lambda: list((tmp_path / "gate").glob("*/epochs.csv")), "training to begin")
        command.interrupt()
        assert command.wait() == 130
        assert command.left() == []
        assert "Traceback" not in command.stderr.read_text()
    for side in ("base", "head"):
        assert [row["status"] for row in RunFolder(tmp_path / "gate" / side).rows("trials")] == ["interrupted"]
    assert worktree_folders() == before


def worktree_folders() -> list[str]:
    return [line.split()[0] for line in git(CHECKOUT, "worktree", "list").splitlines()]
