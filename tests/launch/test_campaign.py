"""A short fault campaign, and that its books would show what it looks for."""

from __future__ import annotations

import random
from pathlib import Path

import campaign
import pytest
from campaign import Campaign
from faults import KINDS, SLOW

ROW = {"launch_id": "a", "trial_key": "k", "repeat": "0", "status": "ok"}


@pytest.mark.timeout(1200)  # the campaign itself says what a hang is, after 600 s
def test_faults_at_random_moments_lose_double_damage_and_leave_nothing() -> None:
    quick = [kind for kind in KINDS if kind not in SLOW]
    said: list[str] = []
    with campaign.disk() as (folder, kinds):
        found = Campaign(random.Random(7), 4, folder, [kind for kind in kinds if kind in quick], said.append)
        found.gates = 0 if campaign.no_gates() else 0.25
        found.run()
    assert found.problems == {}, said
    assert found.injected.total() == 4
    assert "| **all** | **4** | 0 | 0 | 0 | 0 | 0 | 0 | 0 |" in found.table(7, 60.0)


# The books


def test_a_row_that_is_gone_and_a_launch_without_one_are_lost() -> None:
    assert campaign.lost({"a"}, [ROW], {"a"}, may_miss=False) == 0
    assert campaign.lost({"b"}, [ROW], {"a"}, may_miss=True) == 1
    assert campaign.lost(set(), [ROW], {"a", "c"}, may_miss=False) == 1
    assert campaign.lost(set(), [ROW], {"a", "c"}, may_miss=True) == 0


def test_a_launch_or_a_trial_that_is_there_twice_is_doubled() -> None:
    retried = {**ROW, "launch_id": "b", "status": "crashed"}
    assert campaign.doubled([ROW, retried, {**ROW, "launch_id": "c", "repeat": "1"}]) == 0
    assert campaign.doubled([ROW, {**ROW, "launch_id": "b"}]) == 1
    assert campaign.doubled([retried, retried]) == 1


@pytest.mark.parametrize(
    ("text", "count"), [("a,b\n1,2\n", 0), ("", 0), ("a,b\n1,2", 1), ("a,b\n1\n", 1), ("a,b\n1,2\n1,2,3\n", 1)]
)
def test_a_file_with_a_row_that_is_not_whole_is_damaged(text: str, count: int, tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text(text)
    assert campaign.damaged(tmp_path) == count


@pytest.mark.parametrize(
    ("code", "kinds", "statuses", "fits"),
    [
        (0, set(), ["ok"], True),
        (1, set(), ["ok", "crashed"], True),
        (0, set(), ["crashed"], False),
        (1, set(), ["ok"], False),
        (130, {"SIGINT"}, ["interrupted"], True),
        (130, {"kill -9 of a rank"}, ["crashed"], False),
        (2, {"full disk"}, [], True),
        (-9, {"kill -9 of the runner"}, [], True),
        (-9, {"SIGTERM"}, [], False),
    ],
)
def test_an_exit_code_has_to_say_what_happened(code: int, kinds: set[str], statuses: list[str], fits: bool) -> None:
    ordinary = campaign.ordinary_code([{**ROW, "status": status} for status in statuses])
    assert campaign.fitting(code, kinds, ordinary) == fits


@pytest.mark.parametrize(
    ("base", "head", "code"),
    [
        (["ok", "ok"], ["ok", "ok"], 0),
        (["ok", "interrupted"], ["ok", "interrupted"], 0),
        (["ok", "ok"], ["ok", "crashed"], 1),
        (["ok", "timeout"], ["ok", "crashed"], 0),
        (["ok", "interrupted"], ["crashed", "crashed"], 1),
        (["crashed"], ["ok"], 3),
        ([], ["ok"], 3),
        (["ok"], [], 3),
    ],
)
def test_the_verdict_that_rows_come_to(base: list[str], head: list[str], code: int) -> None:
    assert campaign.verdict_code(*([{"status": status} for status in side] for side in (base, head))) == code


def test_a_launch_that_failed_in_its_turn_and_ended_well_alone_is_no_regression() -> None:
    turned = [{"status": status, "turns_with": "x"} for status in ("ok", "crashed")]
    alone = {"status": "ok", "turns_with": ""}
    assert campaign.verdict_code([{"status": "ok"}, alone], [*turned, alone]) == 0
    assert campaign.verdict_code([{"status": "ok"}, alone], [*turned, {**alone, "status": "crashed"}]) == 1


def test_problems_are_in_the_table() -> None:
    found = Campaign(random.Random(0), 0, Path(), list(KINDS), lambda text: None)
    found.injected["SIGINT"] += 1
    found.note({"SIGINT"}, "orphans", 2)
    assert "| SIGINT | 1 | 0 | 0 | 2 | 0 | 0 | 0 | 0 |" in found.table(0, 0.0)
