"""Launches with planted noise: the gate alarms as rarely as it says, and finds what it says that it finds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from launching import is_one_error, python
from planted_rows import plant

from reports.cli import main

STEP = 0.0123


def noisy(folder: Path, noise: float, count: int = 400, drift: float = 0.0, **more: Any) -> Path:
    """A run of launches whose step times have this standard deviation, and grow by `drift` from first to last."""
    drawn = random.Random(1)
    times = [STEP * (1 + drift * n / count) * (1 + drawn.gauss(0, noise)) for n in range(count)]
    rows: list[dict[str, Any]] = [
        {"launch_id": f"l{n}", "repeat": n, "step_time_p50_s": time, "images_per_s": 152 / time, **more}
        for n, time in enumerate(times)
    ]
    for n, row in enumerate(rows):
        row["started_at"] = f"2026-01-{1 + n // 1440:02}T{n // 60 % 24:02}:{n % 60:02}:00.000+00:00"
    folder.mkdir()
    plant(folder, *rows)
    return folder


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[str]]:
    """A line's first cell -> the others."""
    main(["selftest", *words])
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in lines}


def test_equal_launches_raise_no_alarm_and_a_large_slow_down_always_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though the machine gets twice as slow meanwhile."""
    found = told(capsys, str(noisy(tmp_path / "run", 0.01, drift=1.0)), "--pairs", "8")
    assert found["measured, each launch used once"][:2] == ["3 + 3", "0 of 33"]
    assert found["permuted"] == ["8 + 8", "0 of 1000", "0.00% (0.00% .. 0.37%)", "at most 1%"]
    assert found["10%"] == ["100%", "0%", "0%"]
    assert found["1%"][0] == "0%"
    (claimed,) = [cells for name, cells in found.items() if name.startswith("what each family claims")]
    assert 60 <= int(claimed[0].rstrip("%")) <= 95  # four times out of five, which families share launches to show


def test_without_a_margin_to_hide_behind_alarms_keep_their_level(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, str(noisy(tmp_path / "run", 0.01, count=800)), "--pairs", "8", "--margin", "0.00001")
    hits = int(found["permuted"][1].split()[0])
    assert 0 < hits <= 15
    assert int(found["5%"][0].rstrip("%")) > 90


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    few = noisy(tmp_path / "few", 0.01, count=11)
    done = python("-m", "reports", "selftest", str(few))
    assert is_one_error(done)
    assert "11 launches that ended well; give 12 or more" in done.stderr
    plant(few, *[{"launch_id": f"other{n}", "micro_batch": 99} for n in range(30)])
    assert "2 trials; give a run of one" in python("-m", "reports", "selftest", str(few)).stderr
    some = noisy(tmp_path / "some", 0.01, count=40)
    assert "40 launches are too few for --pairs 16; give 64" in python("-m", "reports", "selftest", str(some)).stderr
    done = python("-m", "reports", "selftest", str(some), "--pairs", "2")
    assert is_one_error(done)
    assert "'2' is no whole number from 3 on" in done.stderr
