"""Planted rows whose counts are known: which of them two commits have in common, and which differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planted_rows import COUNTED, plant

from bench.record.run_folder import RunFolder
from launch.bisect import counts, times

TRIAL = "resnet20_accumulation 16x8"


def counted(folder: Path, *changes: dict[str, Any], axes: tuple[str, ...] = ()) -> counts.Counts:
    folder.mkdir(exist_ok=True)
    plant(folder, *({**COUNTED, **change} for change in changes))
    return counts.of_rows(RunFolder(folder).rows("trials"), axes).counts


def test_a_kind_of_operation_that_one_commit_does_not_have_is_a_difference(tmp_path: Path) -> None:
    good = counted(tmp_path / "good", {"operation_kinds": "add 2, foreach::mul_ 1"})
    bad = counted(tmp_path / "bad", {"operation_kinds": "add 2, mul 3", "operations_per_window": 5})
    assert counts.differing(good, bad) == {
        (TRIAL, "operations_per_window"): ("3", "5"),
        (TRIAL, "operation_kinds foreach::mul_"): ("1", "0"),
        (TRIAL, "operation_kinds mul"): ("0", "3"),
    }


def test_what_one_commit_did_not_count_is_no_difference(tmp_path: Path) -> None:
    good = counted(tmp_path / "good", {"operation_kinds": None, "casts_per_window": None})
    bad = counted(tmp_path / "bad", {"casts_per_window": 7})
    assert counts.differing(good, bad) == {}
    assert counts.differing(bad, good) == {}


def test_what_differs_between_two_launches_is_unknown_and_not_0(tmp_path: Path) -> None:
    once, again = {"operation_kinds": "add 2, copy_ 1"}, {"operation_kinds": "add 2, mul 1", "repeat": 1}
    good = counted(tmp_path / "good", once, again)
    bad = counted(tmp_path / "bad", {"operation_kinds": "add 3, copy_ 1, mul 1"})
    assert counts.differing(good, bad) == {(TRIAL, "operation_kinds add"): ("2", "3")}


def test_trials_are_told_apart_by_their_axes_and_else_by_their_order(tmp_path: Path) -> None:
    found = counted(tmp_path / "axes", {"precision": "no"}, {"precision": "bf16"}, axes=("precision",))
    assert {trial for trial, _ in found} == {f"{TRIAL} precision=no", f"{TRIAL} precision=bf16"}
    found = counted(tmp_path / "order", {"casts_per_window": 1}, {"casts_per_window": 2})
    assert (found[TRIAL, "casts_per_window"], found[f"{TRIAL} (2)", "casts_per_window"]) == ("1", "2")


def test_a_counting_run_is_short_whatever_was_asked_for() -> None:
    words = ["resnet20_accumulation", "--epochs=9", "--limit_windows", "100", "--classes", "0", "1", "--seed", "0,1"]
    assert counts.shortened(words) == [
        *("resnet20_accumulation", "--classes", "0", "1", "--seed", "0,1"),
        *("--epochs", "1", "--limit-windows", "6", "--warmup-windows", "4"),
    ]


@pytest.mark.parametrize(
    ("change", "interval", "code"),
    [
        (0.05, [0.03, 0.06], times.BAD),
        (0.05, [-0.09, 0.02], times.GOOD),
        (0.05, [0.02, 0.03], times.measure.INCONCLUSIVE),
        (-0.2, [-0.19, -0.11], times.BAD),
        (-0.2, [-0.09, 0.4], times.GOOD),
        (-0.2, [-0.11, -0.09], times.measure.INCONCLUSIVE),
        (0.05, None, times.NOT_COMPARABLE),
        (0.05, [0.03, None], times.NOT_COMPARABLE),
    ],
)
def test_a_commit_is_nearer_to_one_end_if_its_whole_interval_is(
    change: float, interval: list[float] | None, code: int
) -> None:
    worse = {"trial": "a", "metric": "m", "change": change, "interval": [change, change]}
    other = {"trial": "a", "metric": "other", "change": 9.0, "interval": [9.0, 9.0]}
    assert times.nearer([other, {**worse, "interval": interval}], worse) == code


def test_the_largest_measured_change_for_the_worse_is_followed() -> None:
    changes = [("regressed", 0.05), ("regressed", -0.2), ("improved", -0.5), ("regressed", None)]
    found = [
        {"verdict": word, "change": by, "interval": by and [by, by], "change_unit": "share"} for word, by in changes
    ]
    points = {"verdict": "regressed", "change": -6.0, "interval": [-7.0, -5.0], "change_unit": "points"}
    assert times.worst([*found, points]) == found[1]
    assert times.worst([found[0], points]) == points
    assert times.worst(found[2:]) is None
    assert times.size(points, -6.0) == "-6.00 points"
