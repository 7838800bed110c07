"""Histories in which one commit is at fault, whose launches take what a file in them says: that commit is found."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from in_process import judge_in_process
from planted_rows import COUNTED, plant

from launch.cli import main
from launch.commands import bisect

# Stands in for a checkout's `python -m launch run`: appends a copy of a planted row with what the commit's file says.
LAUNCH = """
import csv, datetime, json, os, pathlib, random, signal, subprocess, sys, time
words = dict(zip(sys.argv, sys.argv[1:]))
planted = pathlib.Path({planted!r})
says = json.load(open("says.json"))
commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True)[:12]
ran = planted / "ran.txt"
with ran.open("a") as file:
    print(commit, file=file)
stop = planted / "stop"
if stop.exists() and len(ran.read_text().splitlines()) >= int(stop.read_text()):
    stop.unlink()
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
if "exit" in says:
    sys.exit(says["exit"])
head, row = csv.reader(open(planted / "trials.csv"))
out = pathlib.Path(words["--out"])
now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
found = dict(zip(head, row)) | {{"launch_id": str(time.monotonic_ns()), "repeat": words["--repeat"]}}
found |= {{"commit": commit, "started_at": now}} | {{name: str(value) for name, value in says.items() if name in head}}
pace = says.get("times", [says.get("time", 1)] * 3)[int(words["--repeat"])]
found["step_time_p50_s"] = str(0.01 * pace * (1 + random.uniform(-0.001, 0.001)))
if "--seed" in words:
    found |= {{"seed": words["--seed"], "eval_accuracy": str(says.get("accuracy", 0.9) + 0.001 * random.random())}}
if says.get("varies"):
    found["waits_per_window"] = str(time.monotonic_ns())
if "fails" in says and "4" != words["--warmup-windows"]:
    found |= {{"status": "crashed", "error": "rank 0 fell"}}
path = out / "trials.csv"
new = not path.exists()
with path.open("a", newline="") as file:
    writer = csv.writer(file, lineterminator="\\n")
    writer.writerows(([head] if new else []) + [[found[name] for name in head]])
time.sleep(0.002)
sys.exit(found["status"] != "ok")
"""

SLOW, CAST = {"time": 1.05}, {"casts_per_window": 2, "operation_kinds": "_to_copy 2, convolution 2"}


@dataclass(frozen=True)
class Commit:
    """What the launches of a commit say, and the numbers of its parents; None: the commit before it."""

    says: dict[str, Any] = field(default_factory=dict)
    parents: tuple[int, ...] | None = None


@dataclass(frozen=True)
class History:
    """A repository with these commits, and the file in which each launch leaves its commit."""

    folder: Path
    planted: Path
    commits: list[str]

    def ran(self) -> list[int]:
        """The numbers of the commits that were launched, in their order."""
        path = self.planted / "ran.txt"
        known = [commit[:12] for commit in self.commits]
        return [known.index(line) for line in path.read_text().split()] if path.exists() else []

    def git(self, *words: str) -> str:
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(self.folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def history(scratch: Path, monkeypatch: pytest.MonkeyPatch, commits: Sequence[Commit]) -> History:
    if not shutil.which("git"):
        pytest.skip("no git")
    folder, planted = scratch / "repository", scratch / "planted"
    planted.mkdir()
    plant(planted, COUNTED)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    files = {"launch/__init__.py": "", "launch/__main__.py": LAUNCH.format(planted=str(planted))}
    stream = []
    for number, commit in enumerate(commits):
        files["says.json"] = json.dumps(commit.says)
        by = f"x <x@example.org> {1_600_000_000 + 86400 * number} +0000"
        stream += ["commit refs/heads/history", f"mark :{number + 1}", f"author {by}", f"committer {by}"]
        stream += [data(f"commit number {number}")]
        parents = ((number - 1,) if number else ()) if commit.parents is None else commit.parents
        stream += [f"{'merge' if at else 'from'} :{parent + 1}" for at, parent in enumerate(parents)]
        for path, text in files.items():
            stream += [f"M 100644 inline {path}", data(text)]
    made = History(folder, planted, [])
    marks = scratch / "marks"
    command = ["git", "-C", str(folder), "fast-import", "--quiet", f"--export-marks={marks}"]
    subprocess.run(command, input="\n".join(stream) + "\n", text=True, check=True)
    lines = sorted((int(mark[1:]), sha) for mark, sha in map(str.split, marks.read_text().splitlines()))
    made.commits.extend(sha for _, sha in lines)
    made.git("checkout", "--quiet", "history")
    monkeypatch.setattr(bisect, "REPOSITORY", folder)
    judge_in_process(monkeypatch)
    return made


def data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}"


def told(
    made: History, capfd: pytest.CaptureFixture[str], *words: str, good: int | str = 0, bad: int | str = -1
) -> tuple[int, str]:
    """(exit code, stderr and then stdout) of a bisect, which must leave nothing in the repository."""
    before = made.git("for-each-ref"), made.git("rev-parse", "HEAD")
    refs = [made.commits[end] if isinstance(end, int) else end for end in (good, bad)]
    more = ["--out", str(made.planted.parent / "bisect"), *words]
    more += [] if "--seeds" in words else ["--pairs", "3"]
    with pytest.raises(SystemExit) as ended:
        main(["bisect", *refs, "resnet20_accumulation", *more])
    assert made.git("worktree", "list").count("\n") == 1, "a worktree is left"
    assert (made.git("for-each-ref"), made.git("rev-parse", "HEAD")) == before
    printed = capfd.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, printed.err + printed.out


def planted_at(seed: int, fault: dict[str, Any]) -> tuple[list[Commit], int]:
    """(24 commits, the number of the one with the fault). Nos. 6 to 8 are a branch that no. 12 merges; two others, of
    which one crashes, do not run."""
    coin = random.Random(seed)
    parents: dict[int, tuple[int, ...]] = {number: (number - 1,) for number in range(1, 24)}
    parents |= {0: (), 9: (5,), 12: (11, 8)}
    at = coin.randrange(1, 24)
    # What does not run must not be the one, nor hide it: the end that is bad has to run as well.
    able = [number for number in range(1, 23) if number != at and number not in parents[at]]
    reasons: list[dict[str, Any]] = [{"exit": 2}, {"status": "crashed", "error": "rank 0 fell"}]
    broken = dict(zip(coin.sample(able, 2), reasons, strict=True))
    has = {at}
    for number in range(24):
        if has & set(parents[number]):
            has.add(number)
    commits = [
        Commit({"images_seen": number, **(fault if number in has else {}), **broken.get(number, {})}, parents[number])
        for number in range(24)
    ]
    return commits, at


@pytest.mark.parametrize("seed", range(4))
def test_the_commit_that_changed_a_count_is_found(
    seed: int, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, at = planted_at(seed, CAST)
    made = history(tmp_path, monkeypatch, commits)
    code, said = told(made, capfd)
    assert code == 0, said
    assert f"the first bad commit is {made.commits[at][:12]}  " in said
    assert f"commit number {at}\n  resnet20_accumulation 16x8: casts_per_window 1 -> 2\n" in said
    assert "operation_kinds _to_copy 1 -> 2" in said
    assert "change later" not in said
    # Both ends twice; of 22 commits between, halved each time, five, and those that do not run.
    assert len(made.ran()) <= 4 + 5 + 2


@pytest.mark.parametrize("seed", [6])
def test_the_commit_that_is_slower_is_found(
    seed: int, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, at = planted_at(seed, SLOW)
    made = history(tmp_path, monkeypatch, commits)
    code, said = told(made, capfd)
    assert code == 0, said
    assert "no count differs between the ends" in said
    assert f"the first bad commit is {made.commits[at][:12]}  " in said
    (parent, *_) = commits[at].parents or ()
    assert f"against {made.commits[parent][:12]}, the commit before it" in said
    line = said.split("16x8: step_time_p50_s ")[-1].splitlines()[0]
    assert all(4.5 < float(part.split("%")[0]) < 5.5 for part in (line, line.rpartition("[")[2]))


def linear(*says: dict[str, Any]) -> list[Commit]:
    return [Commit({"images_seen": number, **each}) for number, each in enumerate(says)]


def test_times_decide_where_that_is_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history(tmp_path, monkeypatch, linear({}, CAST, CAST, {**CAST, **SLOW}, {**CAST, **SLOW}))
    assert f"the first bad commit is {made.commits[1][:12]}" in told(made, capfd)[1]
    shutil.rmtree(tmp_path / "bisect")
    assert f"the first bad commit is {made.commits[3][:12]}" in told(made, capfd, "--by-time")[1]


def test_a_loss_of_accuracy_over_seeds_is_found(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history(tmp_path, monkeypatch, linear({}, {}, {"accuracy": 0.87}, {"accuracy": 0.87}))
    code, said = told(made, capfd, "--seeds", "3")
    assert code == 0, said
    assert f"the first bad commit is {made.commits[2][:12]}" in said
    change, _, interval = said.split("16x8: eval_accuracy ")[-1].partition(" points (95% interval ")
    assert -3.2 < float(change) < -2.8
    assert interval.split()[1] == "points"


def test_of_several_that_change_counts_the_first_is_found_and_the_others_are_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {"waits_per_window": 1}
    both = {"waits_per_window": 3, "casts_per_window": 9}
    made = history(tmp_path, monkeypatch, linear({}, {}, first, first, both, both))
    code, said = told(made, capfd)
    assert code == 0
    assert f"the first bad commit is {made.commits[2][:12]}" in said
    assert "waits_per_window 0 -> 1" in said
    assert "1 of 2 counts are not those of the good commit, 1 of them not those of the bad one either" in said
    later = "2 of the 2 counts that differ between the ends change later; to find where, give "
    assert f"{later}{made.commits[2][:12]} as the good commit" in said


def test_a_count_that_varies_between_launches_decides_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history(tmp_path, monkeypatch, linear({}, {"varies": True}, {"varies": True, **CAST}, {**CAST, "varies": 1}))
    code, said = told(made, capfd)
    assert code == 0
    assert f"the first bad commit is {made.commits[2][:12]}" in said
    assert "waits_per_window" not in said


def test_it_goes_on_where_it_was_interrupted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, at = planted_at(1, CAST)
    made = history(tmp_path, monkeypatch, commits)
    (made.planted / "stop").write_text("6")
    code, said = told(made, capfd)
    assert code == 130
    assert "Traceback" not in said
    assert len(made.ran()) == 6
    before = made.ran()
    code, said = told(made, capfd)
    assert code == 0
    assert f"the first bad commit is {made.commits[at][:12]}" in said
    after = made.ran()[len(before) :]
    assert set(after) & set(before) == {before[-1]}, "the one that was interrupted is run again, and no other one"
    code, again = told(made, capfd)
    assert code == 0
    assert made.ran() == [*before, *after]
    assert again[again.index("the first bad") :] == said[said.index("the first bad") :]
    for words, why in (
        (["--seed", "3"], "words resnet20_accumulation --data-root"),
        (["--by-time"], "by time False, not True"),
    ):
        code, said = told(made, capfd, *words)
        assert code == 2
        assert "is of another bisect" in said
        assert why in said
    assert "bad commit" in told(made, capfd, bad=-2)[1]


def test_an_interrupted_comparison_is_done_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history(tmp_path, monkeypatch, linear({}, {}, SLOW, SLOW))
    (made.planted / "stop").write_text("8")  # in the comparison of the ends
    assert told(made, capfd)[0] == 130
    code, said = told(made, capfd)
    assert code == 0
    assert f"the first bad commit is {made.commits[2][:12]}" in said
    assert f"against {made.commits[1][:12]}" in said


def test_a_bisect_of_the_user_s_own_stays_as_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history(tmp_path, monkeypatch, linear({}, {}, {}, {}, CAST, CAST))
    made.git("bisect", "start", made.commits[5], made.commits[0])
    before = made.git("bisect", "log"), made.git("for-each-ref", "refs/bisect")
    assert before[1].count("\n") == 2
    code, said = told(made, capfd)
    assert code == 0
    assert f"the first bad commit is {made.commits[4][:12]}" in said
    assert (made.git("bisect", "log"), made.git("for-each-ref", "refs/bisect")) == before
    made.git("bisect", "reset")
    assert not list((made.folder / ".git").glob("**/*BISECT*"))
    assert not list((made.folder / ".git").glob("**/bisect/*"))


def test_skipped_commits_that_are_in_the_way_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history(tmp_path, monkeypatch, linear({}, {}, {"exit": 2}, {"casts_per_window": ""}, CAST, CAST))
    code, said = told(made, capfd)
    assert code == 3
    assert "one of these 3 commits did it" in said
    assert f"all but {made.commits[4][:12]}, which is bad, were skipped" in said
    assert "commit number 2: launch run ended with exit code 2 and no rows" in said
    assert "commit number 3: resnet20_accumulation 16x8 has no casts_per_window" in said


def test_where_nothing_differs_there_is_nothing_to_find(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history(tmp_path, monkeypatch, linear({}, {"exit": 2}, {"time": 0.9}))
    code, said = told(made, capfd)
    assert code == 3
    assert "there is nothing to find" in said
    assert set(made.ran()) == {0, 2}


def test_where_too_little_can_be_told_of_the_ends_no_commit_is_tried(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history(tmp_path, monkeypatch, linear({}, {}, {"times": [1, 1.1, 1.2]}))
    code, said = told(made, capfd)
    assert code == 3
    assert f"it cannot be told whether {made.commits[2][:12]} is worse than {made.commits[0][:12]}" in said
    assert set(made.ran()) == {0, 2}


def test_what_no_single_commit_did_is_not_laid_on_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history(tmp_path, monkeypatch, linear(*({"time": 1 + 0.02 * number} for number in range(6))))
    code, said = told(made, capfd)
    assert code == 3
    assert "no commit alone is shown to have done it" in said


def test_what_is_surely_on_neither_side_is_skipped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history(tmp_path, monkeypatch, linear({}, {"times": [1, 1.025, 1.05]}, SLOW))
    code, said = told(made, capfd)
    assert code == 3
    assert "not surely on one side of half of the change between the ends" in said
    assert "one of these 2 commits did it" in said


def test_a_commit_whose_launches_fail_while_they_are_timed_is_skipped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history(tmp_path, monkeypatch, linear({}, {**SLOW, "fails": True}, SLOW))
    code, said = told(made, capfd, "--warmup-windows", "3")
    assert code == 3
    assert "commit number 1: 1 of 1 launches in HEAD failed, 0 of 1 in BASE; crashed: rank 0 fell" in said
    assert "one of these 2 commits did it" in said
    shutil.rmtree(tmp_path / "bisect")
    code, said = told(made, capfd, "--warmup-windows", "3", bad=1)
    assert code == 3
    assert "it is not shown that" in said


def test_where_the_commit_before_the_first_bad_one_does_not_run_the_good_one_stands_for_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No. 3, which is good, shows that no. 1 is."""
    commits = linear({}, {"exit": 2})
    commits += [Commit(SLOW, (1,)), Commit({}, (1,)), *(Commit({"images_seen": at}, (at - 1,)) for at in (4, 5))]
    made = history(tmp_path, monkeypatch, [*commits, Commit(SLOW, (2, 5))])
    code, said = told(made, capfd)
    assert code == 0, said
    assert f"its parent {made.commits[1][:12]} does not run (launch run ended with exit code 2 and no rows)" in said
    assert f"the first bad commit is {made.commits[2][:12]}" in said
    assert f"against {made.commits[0][:12]}, the good one" in said


REFUSED: list[tuple[dict[str, Any], list[str], str]] = [
    ({"bad": 0}, [], "both are commit"),
    ({"good": 3, "bad": 0}, [], "comes before the good one"),
    ({"good": 1, "bad": 4}, [], "is not in the history of"),
    ({"good": 2}, [], "does not run (launch run ended with exit code 2 and no rows); give one that does"),
    ({"bad": 2}, [], "the bad commit"),
    ({"bad": "nowhere"}, [], "no commit 'nowhere'"),
    ({}, ["--junit", "x.xml"], "bisect gives no verdict: leave out --markdown"),
    ({}, ["--fail-inconclusive"], "bisect gives no verdict"),
    ({}, ["--repeats", "3"], "bisect decides --repeats itself"),
    ({}, ["--margin", "5"], "--margin: '5' is no share"),
]


@pytest.mark.parametrize(("ends", "words", "why"), REFUSED)
def test_what_cannot_be_is_one_sentence(
    ends: dict[str, Any],
    words: list[str],
    why: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commits = [*linear({}, {}, {"exit": 2}, CAST), Commit(CAST, (0,)), Commit(CAST, (3,))]
    made = history(tmp_path, monkeypatch, commits)
    code, said = told(made, capfd, *words, **ends)
    assert code == 2
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert why in errors[0]


def test_a_folder_in_use_is_left_as_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history(tmp_path, monkeypatch, linear({}, CAST))
    (tmp_path / "bisect").mkdir()
    (tmp_path / "bisect" / "mine").touch()
    code, said = told(made, capfd)
    assert code == 2
    assert "is there already and has no bisect.json" in said
    (tmp_path / "bisect" / "bisect.json").write_text("{")
    code, said = told(made, capfd)
    assert code == 2
    assert "bisect.json is no log of a bisect" in said
    assert sorted(path.name for path in (tmp_path / "bisect").glob("[!.]*")) == ["bisect.json", "mine"]


def test_two_commits_leave_nothing_to_try(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history(tmp_path, monkeypatch, linear({}, SLOW))
    code, said = told(made, capfd)
    assert code == 0
    assert f"the first bad commit is {made.commits[1][:12]}" in said
    assert len(made.ran()) == 4 + 2 * 3, "the comparison of the ends is that with its parent"
