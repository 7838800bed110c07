"""Series with and without a planted step: the step is found at its run, and seldom one where there is none."""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path

import pytest
from planted_rows import plant

from reports.cli import main

pytest.importorskip("ruptures", reason="the extra `history` is not installed")
from reports.verdicts import history

NOISE = 0.01


def drawn(seed: int, count: int, step: float = 0.0, at: int | None = None) -> list[float]:
    """Logarithms of a series with normal noise, which changes by a share from a place on."""
    numbers = random.Random(seed)
    return [numbers.gauss(0, NOISE) + (math.log1p(step) if at is not None and n >= at else 0.0) for n in range(count)]


def nights(folder: Path, values: list[float], **more: object) -> None:
    """A run folder for each, of one launch a night and commit."""
    for number, value in enumerate(values):
        (folder / f"{number:03}").mkdir(parents=True)
        row = {"launch_id": f"l{number}", "commit": f"{number:012}", "step_time_p50_s": 0.01 * math.exp(value), **more}
        row["started_at"] = f"2026-{1 + number // 28:02}-{1 + number % 28:02}T03:00:00.000+00:00"
        plant(folder / f"{number:03}", row)


@pytest.mark.parametrize("at", [6, 12, 18])
def test_a_step_is_found_at_the_run_that_began_it(at: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nights(tmp_path, drawn(1, 24, 0.08, at))
    main(["history", str(tmp_path)])
    alert, total = capsys.readouterr().out.splitlines()
    assert f"(commit {at:012})" in alert
    assert alert.startswith(f"worse since 2026-{1 + at // 28:02}-{1 + at % 28:02}T03:00:00")
    assert "resnet20_accumulation 16x8: step_time_p50_s" in alert
    assert 6 < float(alert.rpartition(", ")[2].rstrip("%")) < 10
    assert f"{at} runs" in alert
    assert total.startswith("1 change points in ")


def test_what_gets_faster_is_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nights(tmp_path, drawn(1, 24, -0.1, 12))
    main(["history", str(tmp_path)])
    assert capsys.readouterr().out.startswith("better since ")


@pytest.mark.parametrize("count", [10, 20, 60])
def test_one_series_in_twenty_or_fewer_alerts_where_nothing_changed(count: int) -> None:
    alerts = sum(len(history.parts(drawn(seed, count))) > 1 for seed in range(300))
    assert alerts <= 0.05 * 300


def test_one_bad_night_is_no_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = drawn(2, 24)
    values[12] += 1.0
    nights(tmp_path, values)
    main(["history", str(tmp_path)])
    assert capsys.readouterr().out.startswith("0 change points in ")


def test_a_change_within_the_margin_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nights(tmp_path, [0.001 * value for value in drawn(3, 20)][:10] + [0.01 + 0.001 * v for v in drawn(4, 10)])
    main(["history", str(tmp_path)])
    assert "0 change points" in capsys.readouterr().out
    main(["history", str(tmp_path), "--margin", "0.5%"])
    assert "1 change points" in capsys.readouterr().out


def test_few_runs_are_said_to_be_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nights(tmp_path, drawn(1, 9, 0.5, 4))
    main(["history", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[-1].endswith("9 runs or fewer, which is too few: 10 are needed")


def test_another_machine_is_another_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nights(tmp_path / "a", drawn(1, 12), host="one")
    nights(tmp_path / "b", drawn(2, 12, 0.5, 0), host="other")
    main(["history", str(tmp_path / "a"), str(tmp_path / "b")])
    assert capsys.readouterr().out.startswith("0 change points in ")


def test_a_series_goes_on_where_a_new_version_knows_more_of_the_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = drawn(1, 24, 0.08, 12)
    nights(tmp_path, values)
    for number in range(8, 24):
        shutil.rmtree(tmp_path / f"{number:03}")
    nights(tmp_path / "later", values, power_mode="15W")
    for number in range(8):
        shutil.rmtree(tmp_path / "later" / f"{number:03}")
    main(["history", str(tmp_path), str(tmp_path / "later")])
    alert, total = capsys.readouterr().out.splitlines()
    assert f"(commit {12:012})" in alert
    assert " on " not in alert.partition("step_time_p50_s")[0]
    assert "12 runs" in alert
    assert total.startswith("1 change points in ")


def test_series_of_two_machines_are_named_by_what_tells_them_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nights(tmp_path / "a", drawn(1, 24, 0.08, 12), driver="550")
    nights(tmp_path / "b", drawn(2, 24, 0.08, 12), driver="560")
    main(["history", str(tmp_path / "a"), str(tmp_path / "b")])
    *alerts, total = capsys.readouterr().out.splitlines()
    assert [f"on driver {driver}: step_time_p50_s" in " ".join(alerts) for driver in (550, 560)] == [True, True]
    assert total.startswith("2 change points in ")


@pytest.mark.parametrize(("words", "said"), [(["FOLDER"], "has no run folder in it"), (["FOLDER/no"], "cannot read")])
def test_what_cannot_be_is_one_sentence(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["history", *(word.replace("FOLDER", str(tmp_path)) for word in words)])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert said in printed.err
