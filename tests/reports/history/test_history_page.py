"""The page of the history shows each planted run, the levels and the change points where they were planted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from planted_rows import HOSTILE, plant

from reports.cli import main

pytest.importorskip("ruptures", reason="the extra `history` is not installed")
from reports.history import change_points
from reports.history import page as history_page
from reports.history.run_points import Point
from reports.verdicts import compare

NIGHTS, WORSE_AT, BETTER_AT = 24, 15, 6
QUIET = [0.0, 0.004, -0.003, 0.0, -0.004, 0.003]  # shares by which nights lie off their level
OTHERS = dict.fromkeys(set(compare.METRICS) - {"step_time_p50_s"})  # not measured, so that there are few charts


def nights(folder: Path, count: int = NIGHTS, **more: Any) -> None:
    """Arm 16x8 takes 10 ms, and 11 ms from a night on; arm 64x2 takes 20 ms, and 16 ms from another."""
    for night in range(count):
        (folder / f"{night:03}").mkdir(parents=True)
        row = {"commit": f"{night:012}", "started_at": f"2026-03-{night + 1:02}T03:00:00.000+00:00"}
        off = 1 + QUIET[night % len(QUIET)]
        slow, fast = 0.011 if night >= WORSE_AT else 0.01, 0.016 if night >= BETTER_AT else 0.02
        arms = [{"arm": "16x8", "step_time_p50_s": slow * off}, {"arm": "64x2", "step_time_p50_s": fast * off}]
        plant(
            folder / f"{night:03}",
            *({**OTHERS, "launch_id": f"{night} {each['arm']}", **each, **row, **more} for each in arms),
        )


def page(folder: Path) -> str:
    main(["history", str(folder), "-o", str(folder / "history.html")])
    return (folder / "history.html").read_text()


def words(markup: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", markup).split())


def chart(text: str, anchor: str) -> str:
    return text[text.index(f'<figure id="{anchor}">') :].partition("</figure>")[0]


def marks(drawing: str, kind: str) -> list[tuple[str, float]]:
    """The label and the place from the left of each mark of a kind."""
    found = (
        rf'aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="{kind}" transform="translate\(([\d.]+),'
    )
    return [(label, float(place)) for label, place in re.findall(found, drawing)]


def test_change_points_are_listed_the_worse_first_and_lead_to_their_charts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nights(tmp_path)
    text = page(tmp_path)
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in printed] == ["better", "worse", "2", str(tmp_path / "history.html")]
    table = text.partition("<tbody>")[2].partition("</tbody>")[0]
    first, second = map(words, table.split("</tr>")[:2])
    assert first.startswith("resnet20_accumulation 16x8 step_time_p50_s step ms p50 worse +10.0% 2026-03-16 03:00 ")
    assert f"{WORSE_AT:012} 10 9.96 .. 10.04, 15 runs 11" in first
    assert second.startswith("resnet20_accumulation 64x2 step_time_p50_s step ms p50 better -20.0% 2026-03-07 03:00 ")
    anchors = re.findall(r'href="#(c\d+)"', table)
    drawn = [chart(text, anchor) for anchor in anchors]
    assert ["16x8" in drawn[0], "64x2" in drawn[1]] == [True, True]
    assert f"worse since 2026-03-16 03:00 (commit {WORSE_AT:012}): +10.0%" in drawn[0]


def test_a_chart_has_each_run_and_the_change_where_it_was_planted(tmp_path: Path) -> None:
    nights(tmp_path)
    drawing = chart(page(tmp_path), "c1").partition("<details")[0]
    dots, rules = marks(drawing, "point"), marks(drawing, "rule mark")
    assert [label.partition(": ")[0] for label, _ in dots] == [
        f"2026-03-{night + 1:02} 03:00, commit {night:012}" for night in range(NIGHTS)
    ]
    assert dots[0][0].endswith(": 10")
    assert dots[-1][0].endswith(f": {11 * (1 + QUIET[(NIGHTS - 1) % len(QUIET)]):.4g}")
    (change,) = [place for label, place in rules if label.startswith("worse since")]
    assert dots[WORSE_AT - 1][1] < change < dots[WORSE_AT][1]
    levels = [label for label, _ in rules if not label.startswith("worse since")]
    assert [level.partition(": ")[2] for level in levels] == [
        "10 (9.96 .. 10.04, 15 runs)",
        "11 (10.96 .. 11.04, 9 runs)",
    ]


def test_a_short_series_is_drawn_and_said_to_be_short(tmp_path: Path) -> None:
    nights(tmp_path, change_points.FEWEST_RUNS - 1)
    text = page(tmp_path)
    drawing = chart(text, "c1")
    assert len(marks(drawing, "point")) == change_points.FEWEST_RUNS - 1
    assert "Too few runs to look for change points." in drawing
    assert "None by more than the margin of 2%." in text


def test_of_many_runs_a_mark_is_some_in_a_row_and_never_of_two_levels() -> None:
    points = [Point(0.01 if run < 700 else 0.012, f"2026-01-01T00:{run:06}", f"c{run}") for run in range(2000)]
    series = change_points.series("trial", "on tower", "step_time_p50_s", points, 0.02)
    assert [start for start, _ in series.placed()] == [0, 700]
    dots = [dot for start, part in series.placed() for dot in history_page.grouped(series, part, start, 50)]
    assert [dot["value"] for dot in dots] == [pytest.approx(10)] * 14 + [pytest.approx(12)] * 26
    assert all(dot["low"] == dot["high"] == dot["value"] for dot in dots)
    assert "commits c0 to c49: 10 (10 .. 10, 50 runs)" in dots[0]["tip"]
    assert dots[0]["run"] == (1 + 50) / 2
    drawn = history_page.chart(series, 40).svg(history_page.WIDTH)
    assert len(marks(drawn, "point")) == 40
    assert len(drawn) < 40_000


def test_what_rows_hold_is_text(tmp_path: Path) -> None:
    nights(tmp_path, 3, commit=HOSTILE, host=HOSTILE, started_at=HOSTILE, experiment=HOSTILE)
    text = page(tmp_path)
    assert text.count("<script>") == text.count("</script>") == 1
    assert "<img" not in text
    assert "&lt;script&gt;" in text


def test_a_metric_that_no_table_shows_is_drawn_in_its_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nights(tmp_path, 3, base_rss_bytes=12345)
    monkeypatch.setitem(compare.METRICS, "base_rss_bytes", True)
    text = page(tmp_path)
    assert "base_rss_bytes, bytes. A dot is a run." in text
    assert ", commit 000000000001: 12345" in text


def test_of_many_trials_those_that_changed_are_unfolded(tmp_path: Path) -> None:
    points = [Point(0.01 * (1.1 if run >= 10 else 1), "", "c") for run in range(20)]
    found = [
        change_points.series(f"trial {number}", "", "step_time_p50_s", points if number == 5 else points[:10], 0.02)
        for number in range(history_page.UNFOLDED + 1)
    ]
    history_page.write(found, "many", 0.02, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count('<details class="trial">') == history_page.UNFOLDED
    assert re.search(r'<details class="trial" open>\s*<summary><h2>trial 5<', text)
    assert text.count("<figure ") == history_page.UNFOLDED + 1


def test_a_page_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["history", str(tmp_path), "-o", str(tmp_path)])
    assert ended.value.code == 2
    assert "it is a folder; give the name of a file" in capsys.readouterr().err
