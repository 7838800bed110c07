"""What was judged, in each form: a line for each comparison, the figures planted, and nothing that can run."""

from __future__ import annotations

import json
import re
import resource
import signal
import xml.etree.ElementTree as ElementTree
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from planted_rows import counted, plant, times

from bench.errors import UsageError
from bench.record.csvfile import append_text
from reports import forms
from reports.cli import main
from reports.forms import junit, markdown
from reports.verdicts.comparison import Comparison
from reports.verdicts.report import ComparisonReport

HOSTILE = "<script>alert(1)</script> | `x` [a](http://b) @you www.c.org ![i](j) \x00"


def told(tmp_path: Path, base: list[Any], head: list[Any], *words: str) -> tuple[int, dict[str, str]]:
    """(exit code, form -> its text)."""
    for name, rows in (("base", base), ("head", head)):
        (tmp_path / name).mkdir()
        plant(tmp_path / name, *[{"launch_id": f"{name}{number}", **row} for number, row in enumerate(rows)])
    paths = {name: tmp_path / name for name in forms.names()}
    options = [word for name, path in paths.items() for word in (f"--{name.replace('_', '-')}", f"{path}")]
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path / "base"), str(tmp_path / "head"), *options, *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code, {name: path.read_text() for name, path in paths.items()}


@pytest.fixture
def slower(tmp_path: Path) -> dict[str, str]:
    """A head whose steps take 5% longer."""
    code, found = told(tmp_path, times(), times(0.0123 * 1.05))
    assert code == 1
    return found


def test_json_has_everything(slower: dict[str, str]) -> None:
    found = json.loads(slower["json"])
    assert (found["format"], found["exit_code"], found["margin"], found["level"]) == (2, 1, 0.02, 0.05)
    assert found["verdicts"] == {"regressed": 2, "equivalent": 4}
    (step,) = [each for each in found["comparisons"] if each["metric"] == "step_time_p50_s"]
    assert (step["verdict"], step["unit"]) == ("regressed", "s")
    assert step["change"] == pytest.approx(0.05, abs=1e-6)
    assert (step["change_unit"], step["seeds"], found["accuracy_margin"]) == ("share", None, None)
    assert step["interval"][0] < 0.05 < step["interval"][1]
    assert 0.02 < step["could_show"] < 0.05
    assert step["base"]["median"] == 0.0123
    assert len(step["head"]["launches"]) == 5
    assert "commit 0123456789ab" in found["title"]
    assert "NVIDIA H100" in found["machine"]


def test_junit_has_a_case_for_each_trial_and_metric(slower: dict[str, str]) -> None:
    suite = ElementTree.fromstring(slower["junit"])[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "6",
        "2",
        "0",
        "0",
    )
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    assert failed == {"step_time_p50_s", "images_per_s"}
    (text,) = [case.findtext("system-out") for case in suite if case.get("name") == "step_time_p50_s"]
    assert text is not None
    assert "change: +5.00%" in text


@pytest.mark.parametrize(("words", "kind"), [([], "skipped"), (["--fail-inconclusive"], "failures")])
def test_what_is_inconclusive_is_skipped_or_fails(words: list[str], kind: str, tmp_path: Path) -> None:
    _, found = told(tmp_path, times()[:1], times()[:1], *words)
    assert ElementTree.fromstring(found["junit"])[0].get(kind) == "6"


def test_what_is_not_comparable_is_an_error(tmp_path: Path) -> None:
    code, found = told(tmp_path, times(), [{**row, "torch": "2.10.0"} for row in times()])
    assert code == 3
    assert ElementTree.fromstring(found["junit"])[0].get("errors") == "1"
    assert found["markdown"].startswith("## Not comparable: 1 not comparable")
    assert json.loads(found["smaller_is_better"]) == []


def test_markdown_says_the_verdict_first_and_folds_what_did_not_get_worse(slower: dict[str, str]) -> None:
    text = slower["markdown"]
    assert text.startswith("## Something got worse: 2 regressed, 4 equivalent\n")
    open_part, _, folded = text.partition("<details>")
    assert open_part.count("| regressed |") == 2
    assert folded.count("| equivalent |") == 4
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {10}


def test_smaller_is_better_has_what_is(slower: dict[str, str]) -> None:
    found = {each["name"].rpartition(": ")[2]: each for each in json.loads(slower["smaller_is_better"])}
    assert set(found) == {"step_time_p50_s", "peak_allocated_bytes", "peak_reserved_bytes", "peak_rss_bytes"}
    assert found["step_time_p50_s"]["value"] == pytest.approx(0.0123 * 1.05)
    assert (found["step_time_p50_s"]["unit"], found["peak_rss_bytes"]["unit"]) == ("s", "bytes")


def test_accuracies_over_seeds_have_points_in_each_form(tmp_path: Path) -> None:
    """A loss of 2 points and a spread of 0.1: of 0.9 it would be 2.2%."""
    base = [{**times()[0], "seed": seed, "eval_accuracy": 0.9 + 0.001 * seed} for seed in range(4)]
    losses = [0.02, 0.021, 0.019, 0.02]
    head = [{**row, "eval_accuracy": row["eval_accuracy"] - loss} for row, loss in zip(base, losses, strict=True)]
    code, found = told(tmp_path, base, head, "--over", "seed", "--accuracy-margin", "0.4")
    assert code == 1
    whole = json.loads(found["json"])
    (line,) = [each for each in whole["comparisons"] if each["metric"] == "eval_accuracy"]
    assert (line["verdict"], line["unit"], line["change_unit"], line["seeds"]) == (
        "regressed",
        "share",
        "points",
        [0, 1, 2, 3],
    )
    assert line["change"] == pytest.approx(-2.0)
    assert line["interval"] == pytest.approx([-2.13, -1.87], abs=0.005)  # 3.18 x 0.0816 / 2 on either side
    assert 0.4 < line["could_show"] < 1
    assert (whole["accuracy_margin"], whole["margin"], line["base"]["median"]) == (0.4, 0.02, pytest.approx(0.9015))
    (case,) = [case for case in ElementTree.fromstring(found["junit"])[0] if case.get("name") == "eval_accuracy"]
    assert case.find("failure") is not None
    assert "change: -2.00 points; 95% interval: -2.13 .. -1.87; could show: 0." in str(case.findtext("system-out"))
    assert "launches: 4 seeds" in str(case.findtext("system-out"))
    (row,) = [row for row in found["markdown"].splitlines() if "accuracy |" in row]
    assert "| -2.00 points | -2.13 .. -1.87 |" in row
    assert "a margin of 0.4 points" in found["markdown"]
    assert "eval_accuracy" not in found["smaller_is_better"]  # the larger the better


def judged(*found: Comparison) -> ComparisonReport:
    return ComparisonReport(HOSTILE, HOSTILE, found, 1, 0.02, 0.05)


def test_text_of_rows_is_no_markup() -> None:
    hostile = judged(Comparison(HOSTILE, "regressed", HOSTILE, why=HOSTILE))
    text = markdown.render(hostile)
    for mark in ("<script", "`x`", "](", "http://", "@you", "www.", "![", "\0"):
        assert mark not in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {10}
    case = ElementTree.fromstring(junit.render(hostile))[0][0]
    assert case.get("classname") == HOSTILE.replace("\0", "?")


def test_a_summary_is_never_too_long_and_counts_what_it_leaves_out() -> None:
    many = [Comparison(f"trial {number} {'x' * 400}", "regressed", "m", [1.0], [2.0]) for number in range(4000)]
    text = markdown.render(judged(*many))
    assert len(text.encode()) < 2**20
    shown = text.count("| regressed |")
    assert f"\n{4000 - shown} more lines are left out" in text


def test_counts_have_the_same_forms(tmp_path: Path) -> None:
    counted(tmp_path / "run", {})
    with pytest.raises(SystemExit):
        main(["gate", "exact", str(tmp_path / "run"), str(tmp_path / "exact.csv")])
    main(["baseline", "accept", str(tmp_path / "exact.csv")])
    counted(tmp_path / "head", {"flops_per_window": 7})
    forms_of = ["--json", str(tmp_path / "json"), "--markdown", str(tmp_path / "markdown")]
    with pytest.raises(SystemExit) as ended:
        main(["gate", "exact", str(tmp_path / "head"), str(tmp_path / "exact.csv"), *forms_of])
    found = json.loads((tmp_path / "json").read_text())
    assert (ended.value.code, found["exit_code"], found["verdicts"]["changed"]) == (1, 1, 1)
    assert found["comparisons"][0]["why"] == "1000000000000 -> 7"
    assert (tmp_path / "markdown").read_text().startswith("## Counts changed: 1 changed")


@pytest.mark.parametrize("path", ["", ".", "/nowhere/form"])
def test_what_is_no_file_is_refused_before_any_work(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["gate", "exact", str(counted(tmp_path / "run")), str(tmp_path / "exact.csv"), "--markdown", path])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert printed.err.startswith(f"error: cannot write {path!r}: ")
    assert [left.name for left in tmp_path.iterdir()] == ["run"]


def test_a_form_that_cannot_be_written_is_one_sentence_before_any_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("base", "head"):
        (tmp_path / name).mkdir()
        plant(tmp_path / name, {"launch_id": name})
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path / "base"), str(tmp_path / "head"), "--json", "/proc/x"])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert printed.err.startswith("error: cannot write /proc/x")


def test_a_step_summary_keeps_what_stood_there_and_no_other_file_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whatever name it is given."""
    summary = tmp_path / "step_summary_1"
    summary.write_text("## Another command's\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    report = judged(Comparison("trial", "regressed", "step_time_p50_s"))
    (tmp_path / "link").symlink_to(summary)
    for given in (summary, tmp_path / "link"):
        forms.write(Namespace(**{**dict.fromkeys(forms.names()), "markdown": given}), report)
    own = markdown.render(report)
    assert summary.read_text() == f"## Another command's\n\n{own}\n{own}"
    (tmp_path / "other.md").write_text("old")
    for given in (tmp_path / "other.md", tmp_path / "new.md"):
        forms.write(Namespace(**{**dict.fromkeys(forms.names()), "markdown": given}), report)
        assert given.read_text() == own


def test_a_full_disk_leaves_a_step_summary_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "summary"
    path.write_text("kept\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(UsageError, match=re.escape(str(path))):
            append_text(path, "too long for it\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "kept\n"
