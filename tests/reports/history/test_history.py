"""Series with and without a planted step: the step is found at its run, and seldom one where there is none."""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path

import numpy
import pytest
from planted_rows import plant

from reports import read
from reports.cli import main

pytest.importorskip("ruptures", reason="the extra `history` is not installed")
from reports.history import change_points, run_points
from reports.verdicts import compare

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
    alerts = sum(len(change_points.parts(drawn(seed, count))) > 1 for seed in range(300))
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


@pytest.mark.parametrize("seed", range(20))
def test_the_fast_search_finds_what_the_plain_one_finds(seed: int) -> None:
    import ruptures

    numbers = random.Random(seed)
    levels = [numbers.gauss(0, 0.05) for _ in range(4)]
    values = [levels[n // 15] + numbers.gauss(0, NOISE) for n in range(60)]
    found = change_points.parts(values)
    noise = max(change_points.noise(values), change_points.LEAST_NOISE)
    signal = [[change_points.without_outlier(values, n, noise) / noise] for n in range(60)]
    plain = ruptures.Pelt(model="l2", min_size=change_points.SHORTEST, jump=1).fit(numpy.array(signal))
    assert found == plain.predict(pen=change_points.PENALTY * math.log(60))


@pytest.mark.parametrize("step", [1.0, 1.06, 1000.0])
def test_runs_without_noise_have_the_parts_that_they_have(step: float) -> None:
    low = [math.log(3 * 2**29)] * 1500
    high = [math.log(3 * 2**29 * step)] * 1500
    assert change_points.parts([*low, *high]) == ([3000] if step == 1 else [1500, 3000])


def test_a_row_that_cannot_be_read_is_refused_in_any_of_many_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nights(tmp_path, drawn(1, 12))
    with open(tmp_path / "007" / "trials.csv", "a") as file:
        file.write("of,another,make\n")
    with pytest.raises(SystemExit) as ended:
        main(["history", str(tmp_path)])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert "007/trials.csv: 1 row of trials.csv cannot be read" in printed.err


def test_launches_of_many_folders_are_each_folders_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folder n has the launches n, 2n and 30n, one of them twice; the medians tell whether each was read as its own."""
    monkeypatch.setattr(read, "CHUNK", 7)  # rows of a folder are typed at different times, too
    for number in range(1, 12):
        folder = tmp_path / f"{number:03}"
        folder.mkdir()
        rows = [{"launch_id": f"l{n}", "step_time_p50_s": float(n * number)} for n in (1, 2, 30, 30)]
        plant(folder, *rows, {"launch_id": "late", "status": "interrupted", "step_time_p50_s": 9e9})
    (trial,) = run_points.trials(run_points.run_folders(tmp_path)).values()
    assert [point.value for point in trial.points("step_time_p50_s")] == [2.0 * number for number in range(1, 12)]
    assert len(trial.points("energy_per_image_j")) == 0


def test_a_metric_that_is_added_has_its_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nights(tmp_path, [0.0] * 12, train_accuracy=0.25)
    before = {each.metric for each in change_points.find([tmp_path], 0.02)}
    monkeypatch.setitem(compare.METRICS, "train_accuracy", False)
    after = change_points.find([tmp_path], 0.02)
    assert {each.metric for each in after} - before == {"train_accuracy"}
    assert {point.value for each in after if each.metric == "train_accuracy" for point in each.points()} == {0.25}
