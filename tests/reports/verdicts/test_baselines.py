"""A run becomes the baseline of its machine when it is accepted, and no run that failed ever does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planted_rows import plant, times

from reports.cli import main


def run(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    plant(folder, *[{"launch_id": f"{folder.name}{number}", **row} for number, row in enumerate(rows)])
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    main(["baseline", *map(str, words)])
    return capsys.readouterr().out


def test_a_run_is_kept_for_its_machine_and_the_next_is_held_against_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "baselines"
    first, slower = run(tmp_path / "first", times()), run(tmp_path / "slower", times(0.0123 * 1.05))
    assert said(capsys, "show", first, "--to", kept).startswith("no baseline of this machine yet: ")
    assert not kept.exists()
    said(capsys, "accept", first, "--to", kept)
    (folder,) = kept.iterdir()
    assert folder.name.startswith("nvidia-h100-")
    assert said(capsys, "show", slower, "--to", kept).startswith("2 regressed, 4 equivalent")
    assert (folder / "trials.csv").read_bytes() == (first / "trials.csv").read_bytes()
    assert "2 regressed" in said(capsys, "accept", slower, "--to", kept)
    assert (folder / "trials.csv").read_bytes() == (slower / "trials.csv").read_bytes()
    assert list(kept.iterdir()) == [folder]


def test_a_row_that_is_half_written_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(tmp_path / "first", times())
    whole = (first / "trials.csv").read_bytes()
    (first / "trials.csv").write_bytes(whole + whole.splitlines()[-1][:40])
    said(capsys, "accept", first, "--to", tmp_path / "kept")
    (kept,) = (tmp_path / "kept").glob("*/trials.csv")
    assert kept.read_bytes() == whole


@pytest.mark.parametrize("change", [{"device_name": "NVIDIA A100"}, {"torch": "2.10.0"}, {"host": "../../up"}], ids=str)
def test_another_machine_or_version_has_a_baseline_of_its_own(
    change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "baselines"
    said(capsys, "accept", run(tmp_path / "first", times()), "--to", kept)
    other = run(tmp_path / "other", [{**row, **change} for row in times()])
    assert said(capsys, "accept", other, "--to", kept).startswith("no baseline of this machine yet: ")
    assert len(list(kept.iterdir())) == 2


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([*times(), {"status": "crashed", "error": "killed"}], "ended as crashed; a baseline is a run that went well"),
        (
            [*times(), {"host": "other"}],
            "has rows of several machines or versions: host other and tower; give a run of one",
        ),
    ],
    ids=["failed", "two machines"],
)
def test_what_is_no_baseline_leaves_the_old_one(
    rows: list[dict[str, Any]], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "baselines"
    said(capsys, "accept", run(tmp_path / "first", times()), "--to", kept)
    before = {path: path.read_bytes() for path in kept.rglob("*.csv")}
    with pytest.raises(SystemExit) as ended:
        main(["baseline", "accept", str(run(tmp_path / "bad", rows)), "--to", str(kept)])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert why in printed.err
    assert {path: path.read_bytes() for path in kept.rglob("*.csv")} == before


def test_a_baseline_from_before_a_column_is_still_the_machine_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it is called: the name is made of the columns that there were."""
    kept = tmp_path / "baselines"
    said(capsys, "accept", run(tmp_path / "first", times()), "--to", kept)
    (folder,) = kept.iterdir()
    folder.rename(kept / "of-an-older-version")
    now = run(tmp_path / "now", times(0.0123 * 1.05, power_mode="15W"))
    text = said(capsys, "show", now, "--to", kept)
    assert text.startswith("2 regressed, 4 equivalent")
    assert "power_mode is not known in BASE" in text
    said(capsys, "accept", now, "--to", kept)
    assert [path.name for path in kept.iterdir()] == ["of-an-older-version"]
    other = run(tmp_path / "other", times(power_mode="30W"))
    assert said(capsys, "show", other, "--to", kept).startswith("no baseline of this machine yet: ")
    said(capsys, "accept", other, "--to", kept)
    assert len(list(kept.iterdir())) == 2


def test_of_two_baselines_the_one_that_knows_more_of_the_machine_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "baselines"
    said(capsys, "accept", run(tmp_path / "mode", times(0.02, power_mode="15W")), "--to", kept)
    (folder,) = kept.iterdir()
    old = run(tmp_path / "old", times())
    (kept / "a").mkdir()
    (kept / "z").mkdir()
    for name in "az":
        (kept / name / "trials.csv").write_bytes((old / "trials.csv").read_bytes())
    now = run(tmp_path / "now", times(0.02, power_mode="15W"))
    assert said(capsys, "show", now, "--to", kept).startswith("6 equivalent")
    assert f"{folder} is the baseline now" in said(capsys, "accept", now, "--to", kept)


def test_a_machine_that_is_not_known_finds_no_other_s_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "baselines"
    said(capsys, "accept", run(tmp_path / "first", times()), "--to", kept)
    nameless = run(tmp_path / "nameless", times(host=None))
    assert said(capsys, "show", nameless, "--to", kept).startswith("no baseline of this machine yet: ")
