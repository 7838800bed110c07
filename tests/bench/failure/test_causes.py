"""Outcomes: of all causes that the processes of a launch report, the first stands."""

import json
import os
from pathlib import Path

import planted
import pytest

from bench.failure import causes
from bench.failure.causes import Cause

FIRST, SECOND = Cause("oom", "no room,\nat all"), Cause("crashed", "connection closed by peer", usage=True)


def test_the_first_cause_stands(tmp_path: Path) -> None:
    assert causes.recorded(tmp_path, "a") is None
    assert causes.record(tmp_path, "a", FIRST) == (FIRST, True)
    assert causes.record(tmp_path, "a", SECOND) == (FIRST, False)
    assert causes.recorded(tmp_path, "a") == FIRST


def test_a_killed_rank_s_cause_names_the_signal_if_it_is_known() -> None:
    assert causes.killed(1).error == "rank 1 was killed; if not by you, see dmesg"
    assert causes.killed(1, "SIGKILL").error == "rank 1 was killed by SIGKILL; if not by you, see dmesg"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SIGSEGV", "rank 1 died of SIGSEGV; a library crashed; see the log"),
        ("SIGABRT", "rank 1 died of SIGABRT; a library gave up, and said why in the log"),
        ("SIGBUS", "rank 1 died of SIGBUS; a full /dev/shm or disk does that: see df, and the log"),
        ("SIGTERM", "rank 1 died of SIGTERM; if not by you, ask what else runs here"),
        ("signal 40", "rank 1 died of signal 40; if not by you, see dmesg"),
    ],
)
def test_another_signal_than_sigkill_is_named_with_what_it_means(name: str, said: str) -> None:
    assert causes.killed(1, name) == Cause("crashed", said, silent=True)


def test_launches_have_causes_of_their_own(tmp_path: Path) -> None:
    causes.record(tmp_path, "a", FIRST)
    assert causes.record(tmp_path, "b", SECOND) == (SECOND, True)
    assert causes.recorded(tmp_path, "b") == SECOND


def test_nothing_is_left_beside_the_causes(tmp_path: Path) -> None:
    causes.record(tmp_path, "a", FIRST)
    causes.record(tmp_path, "a", SECOND)
    assert [path.name for path in tmp_path.iterdir()] == ["a.cause.json"]


def test_a_cause_that_cannot_be_put_on_record_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for logs in (tmp_path / "nowhere", tmp_path / "file", tmp_path / "file" / "logs"):
        assert causes.record(logs, "a", FIRST) == (FIRST, True)
        assert causes.recorded(logs, "a") is None


def _race(folder: Path, count: int) -> None:
    won = []
    for number in range(count):
        cause, first = causes.record(folder, str(number), Cause("crashed", os.environ["RANK"]))
        assert first == (cause.error == os.environ["RANK"])
        won.append(cause.error)
    (folder / f"won{os.environ['RANK']}").write_text(json.dumps(won))


def test_of_causes_at_the_same_time_one_stands_for_all(tmp_path: Path) -> None:
    assert planted.group(3, _race, tmp_path, 50, said=tmp_path) == [0] * 3, (tmp_path / "rank0.txt").read_text()
    seen = [json.loads((tmp_path / f"won{rank}").read_text()) for rank in range(3)]
    assert seen[0] == seen[1] == seen[2]
