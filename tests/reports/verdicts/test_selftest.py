"""Gates with planted noise: the gate alarms as rarely as it says, and finds what is planted."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from launching import is_one_error, python
from planted_rows import plant
from planted_turns import gate

from reports.cli import main
from reports.verdicts import selftest


@pytest.fixture(autouse=True)
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "DRAWN", 60)
    monkeypatch.setattr(selftest, "PLANTED", 20)
    # 0.6%, which is printed as 1%, is within the margin by more than the mean of a few launches is off by chance.
    monkeypatch.setattr(selftest, "SLOWER", (0.006, 0.1))


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, dict[str, list[str]]]:
    """(all that was printed, a line's first cell -> the others)."""
    main(["selftest", *words])
    text = capsys.readouterr().out
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return text, {cells[0]: cells[1:] for cells in lines}


def test_equal_launches_raise_no_alarm_and_what_is_planted_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though the machine is up to three times slower from one minute to another."""
    gate(tmp_path / "equal", 48, 1.0, random.Random(1))
    gate(tmp_path / "slow", 48, 1.03, random.Random(2))
    words = ["--pairs", "16", "--slowed", f"3% really={tmp_path / 'slow'}"]
    text, found = told(capsys, str(tmp_path / "equal"), *words)
    assert text.startswith("48 pairs of launches of resnet20_accumulation 16x8")
    assert "A pair takes 10 s, so that five minutes hold 30. Looks after 4, 8, 16 pairs" in text
    assert found["measured, each pair used once"][0].startswith("0 of ")
    assert found["drawn from all pairs"][:3] == ["0 of 60", "0.00% (0.00% .. 5.96%)", "at most 1%"]
    assert found["10%, in the numbers"][1].startswith("100% ")
    assert found["1%, in the numbers"][1].startswith("0% "), "it is within the margin"
    (name,) = [name for name in found if name.startswith("3% really, 48 pairs: step time ")]
    assert float(name.split()[6].rstrip("%")) == pytest.approx(3, rel=0.1)
    assert "CPU time +" in name
    assert found[name][1].startswith("100% ")
    assert found["3% really, drawn from these"][1].startswith("100% ")


def test_without_a_margin_to_hide_behind_small_changes_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate(tmp_path / "equal", 40, 1.0, random.Random(3))
    _, found = told(capsys, str(tmp_path / "equal"), "--pairs", "16", "--margin", "0.00001")
    assert int(found["1%, in the numbers"][1].split("%")[0]) > 80
    assert int(found["drawn from all pairs"][0].split()[0]) < 20


def test_the_time_of_a_budget_may_be_up_before_all_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The look at the pairs until then is the last one, as in `launch gate --budget`, and spends all that is left."""
    gate(tmp_path / "equal", 20, 1.0, random.Random(1))
    text, found = told(capsys, str(tmp_path / "equal"), "--budget-pairs", "10")
    assert "Looks after 8, 10 pairs" in text
    assert found["measured, each pair used once"][0].split()[2] in ("2", "3")  # of 20 pairs, 8 or 10 in a family
    assert selftest.Gate(32, 0.01, 10).looks() == {8: 0.25, 10: 1.0}
    assert selftest.Gate(32, 0.01, 40).looks() == selftest.Gate(32, 0.01).looks() == {8: 0.25, 16: 0.5, 32: 1.0}


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    few = tmp_path / "few"
    gate(few, 13, 1.0, random.Random(4))
    done = python("-m", "reports", "selftest", str(few))
    assert is_one_error(done)
    assert "13 pairs are too few for a family of 32; run more pairs, or give fewer --budget-pairs" in done.stderr
    done = python("-m", "reports", "selftest", str(few), "--pairs", "11")
    assert is_one_error(done)
    assert "'11' is no whole number from 12 on" in done.stderr
    assert is_one_error(python("-m", "reports", "selftest", str(few), "--slowed", "runs/slow"))
    plant(few / "head", *[{"launch_id": f"other{n}", "micro_batch": 99} for n in range(3)])
    done = python("-m", "reports", "selftest", str(few))
    assert "head has 2 trials; give the --out folder of a gate on one" in done.stderr
