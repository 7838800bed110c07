"""Pairs are launches that were made and recorded as such; what does not count is counted, in each form."""

from __future__ import annotations

import json
import statistics
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from planted_rows import NAME, plant, times

from bench.record.run_folder import RunFolder
from reports import forms
from reports.cli import main

FIVE = [1.0, 2.0, 3.0, 4.0, 5.0]
THREE_OUT: list[dict[str, Any]] = [{"status": "crashed"}, {"other_processes": 2}, {"status": "interrupted"}]


def side(folder: Path, launches: list[dict[str, Any]], rounds: list[str | None]) -> None:
    folder.mkdir()
    plant(folder, *[{"launch_id": f"{folder.name}{number}", **row} for number, row in enumerate(launches)])
    named = [{"launch_id": f"{folder.name}{n}", "round": name} for n, name in enumerate(rounds) if name is not None]
    if named:
        RunFolder(folder).append("rounds", named)


def at(day: int, hour: int) -> str:
    return f"2026-01-{day:02}T{hour:02}:00:00.000+00:00"


def compared(
    folder: Path, capsys: pytest.CaptureFixture[str], base: list[Any], head: list[Any], rounds: tuple[Any, Any]
) -> tuple[dict[str, str], dict[str, Any]]:
    """(form -> its text, what the JSON has of the step time)."""
    for name, launches, own in zip(("base", "head"), (base, head), rounds, strict=True):
        side(folder / name, launches, own)
    paths = {name: folder / name for name in forms.names()}
    options = [word for name, path in paths.items() for word in (f"--{name.replace('_', '-')}", f"{path}")]
    with pytest.raises(SystemExit):
        main(["compare", str(folder / "base"), str(folder / "head"), *options])
    found = {name: path.read_text() for name, path in paths.items()} | {"terminal": capsys.readouterr().out}
    (step,) = [each for each in json.loads(found["json"])["comparisons"] if each["metric"] == "step_time_p50_s"]
    return found, step


def base_of_five() -> list[dict[str, Any]]:
    return [{"step_time_p50_s": s, "repeat": n, "started_at": at(1, n)} for n, s in enumerate(FIVE)]


def test_equal_repeats_are_no_pairs_and_no_launch_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five launches, and one a day later: its repeat is 0, as the first one's is."""
    head = [{"step_time_p50_s": 3.0, "repeat": 0, "started_at": at(2, 0)}]
    found, step = compared(tmp_path, capsys, base_of_five(), head, ([], []))
    assert (step["paired"], step["base"]["launches"], step["base"]["median"]) == (False, FIVE, statistics.median(FIVE))
    assert (step["launches"], step["left_out"]) == ({"base": 5, "head": 1}, [])
    assert "5 and 1 launches have no spread" in step["why"]
    for form in ("terminal", "markdown", "junit"):
        assert "pairs" not in found[form]
        assert "5 and 1" in found[form]


def test_launches_that_alternate_by_chance_are_no_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = [{**row, "started_at": at(1 + 2 * n, 0)} for n, row in enumerate(times())]
    head = [{**row, "started_at": at(2 + 2 * n, 0)} for n, row in enumerate(times())]
    _, step = compared(tmp_path, capsys, base, head, ([], []))
    assert (step["paired"], step["launches"]) == (False, {"base": 5, "head": 5})


def test_rounds_of_two_gates_are_no_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rounds = [f"one-{n}" for n in range(5)], [f"other-{n}" for n in range(5)]
    _, step = compared(tmp_path, capsys, times(), times(), rounds)
    assert step["paired"] is False


def test_recorded_rounds_are_pairs_in_whichever_order_they_ran(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The machine gets slower each time, which pairs do not mind; the head of a round is 5% slower."""
    base = [{"step_time_p50_s": s, "repeat": n, "started_at": at(1, 2 * n)} for n, s in enumerate(FIVE)]
    head = [{**row, "step_time_p50_s": 1.05 * s} for row, s in zip(base, FIVE, strict=True)][::-1]
    rounds = [f"g-{n}" for n in range(5)]
    _, step = compared(tmp_path, capsys, base, head, (rounds, rounds[::-1]))
    assert (step["paired"], step["verdict"], step["change"]) == (True, "regressed", pytest.approx(0.05))


def test_a_pair_without_a_spread_does_not_stand_for_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rounds = ["g-0", None, None, None, None], ["g-0", None, None, None, None]
    _, step = compared(tmp_path, capsys, times(), times(), rounds)
    assert (step["paired"], step["launches"]) == (False, {"base": 5, "head": 5})


def test_every_form_tells_how_many_count_and_how_many_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [*times(), {"status": "crashed", "error": "killed", "repeat": 5}]
    head = [*times()[:3], {**times()[3], **THREE_OUT[1]}, {**times()[4], **THREE_OUT[2]}]
    rounds = [f"g-{n}" for n in range(6)], [f"g-{n}" for n in range(5)]
    found, step = compared(tmp_path, capsys, base, head, rounds)
    assert (step["paired"], step["launches"]) == (True, {"base": 3, "head": 3})
    out = {each["why"]: (each["base"], each["head"]) for each in step["left_out"]}
    assert out == {
        "did not end well": (1, 0),
        "were interrupted": (0, 1),
        "were throttled, resumed or not alone on their device": (0, 1),
        "have no partner in a pair": (2, 0),
    }
    assert len(step["base"]["launches"]) + sum(base for base, _ in out.values()) == len(base)
    assert len(step["head"]["launches"]) + sum(head for _, head in out.values()) == len(head)
    cases = ElementTree.fromstring(found["junit"])[0]
    (case,) = [each for each in cases if each.get("name") == "step_time_p50_s"]
    for text in (found["terminal"], found["markdown"], case.findtext("system-out") or ""):
        assert "3 pairs; 3 and 2 left out" in text
        for why, (one, other) in out.items():
            assert f"{one} of BASE and {other} of HEAD {why}" in text
    (smaller,) = [each for each in json.loads(found["smaller_is_better"]) if each["name"].endswith("step_time_p50_s")]
    assert smaller["extra"].startswith("3 launches, 1 left out that were interrupted, 1 left out that were throttled")
    assert NAME in smaller["name"]


def test_a_second_row_of_a_launch_is_counted_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = [{**row, "launch_id": f"head{number}"} for number, row in enumerate(times())]
    _, step = compared(tmp_path, capsys, times(), [*twice, *twice[:2]], ([], []))
    assert step["launches"] == {"base": 5, "head": 5}
    assert step["left_out"] == [{"base": 0, "head": 2, "why": "have a second row, which does not count"}]


def test_a_seed_that_one_side_lacks_is_counted_in_launches(tmp_path: Path) -> None:
    for name, seeds in (("base", [0, 0, 1, 1, 2, 2]), ("head", [0, 1, 1, 3])):
        rows = [{"seed": seed, "repeat": n, "eval_accuracy": 0.9 + 0.001 * n} for n, seed in enumerate(seeds)]
        side(tmp_path / name, rows, [])
    words = ["--over", "seed", "--json", str(tmp_path / "found.json")]
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path / "base"), str(tmp_path / "head"), *words])
    found = json.loads((tmp_path / "found.json").read_text())["comparisons"]
    (accuracy,) = [each for each in found if each["metric"] == "eval_accuracy"]
    assert (accuracy["seeds"], accuracy["launches"]) == ([0, 1], {"base": 4, "head": 3})
    assert accuracy["left_out"] == [{"base": 2, "head": 1, "why": "are of a seed that the other side lacks"}]


def test_launches_of_several_seeds_in_one_round_are_pairs_of_a_seed(tmp_path: Path) -> None:
    """Each seed twice; the last launch of HEAD failed, and its partner goes."""
    keys = [(seed, repeat) for repeat in range(2) for seed in range(2)]
    for name in ("base", "head"):
        rows: list[dict[str, Any]] = [{"seed": seed, "repeat": repeat} for seed, repeat in keys]
        rows[-1] |= {"status": "crashed", "error": "killed"} if name == "head" else {}
        side(tmp_path / name, rows, [f"g-{repeat}" for _, repeat in keys])
    folders = [str(tmp_path / name) for name in ("base", "head")]
    with pytest.raises(SystemExit):
        main(["compare", *folders, "--over", "seed", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())["comparisons"]
    (step,) = [each for each in found if each["metric"] == "step_time_p50_s"]
    assert (step["paired"], step["launches"]) == (True, {"base": 3, "head": 3})
    assert [(each["base"], each["head"]) for each in step["left_out"]] == [(0, 1), (1, 0)]
