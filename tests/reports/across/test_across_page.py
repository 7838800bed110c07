"""The page, its charts and the other forms of machines side by side say what was planted, and nothing of it can run."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted_rows import HOSTILE, plant

from reports.across import charts, side_by_side
from reports.cli import main

FORMS = ("csv", "json", "latex", "markdown")
A100: dict[str, Any] = {"device_name": "NVIDIA A100", "images_per_s": 1000.0, "epoch_time_s": 120.0, "host": "rack"}
H100: dict[str, Any] = {"images_per_s": 2000.0, "epoch_time_s": 60.0}
PRICES = ("--price", "NVIDIA H100=3", "NVIDIA A100=2")


def run(folder: Path, *rows: dict[str, Any]) -> str:
    folder.mkdir()
    plant(folder, *({"launch_id": f"{folder.name}{number}", **row} for number, row in enumerate(rows)))
    return str(folder)


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """Two machines: on arm 16x8 the faster one's epoch is cheaper, too, on 64x2 the slower one's."""
    fast = run(tmp_path / "h100", H100, {**H100, "arm": "64x2", "peak_allocated_bytes": 2**32})
    slow = run(tmp_path / "a100", A100, {**A100, "arm": "64x2", "epoch_time_s": 80.0}, {**A100, "lr": 0.7})
    return [fast, slow]


@pytest.fixture
def written(two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, str]]:
    """A function that writes all forms and reads them."""

    def write(*folders: str) -> dict[str, str]:
        paths = {name: tmp_path / f"across.{name}" for name in (*FORMS, "html")}
        words = [word for name in FORMS for word in (f"--{name}", str(paths[name]))]
        main(["across", *(folders or two), *words, "-o", str(paths["html"]), *(PRICES if not folders else ())])
        assert capsys.readouterr().err == ""
        return {name: path.read_text() for name, path in paths.items()}

    return write


def words(markup: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html.unescape(markup)).split())


def test_all_forms_say_the_same(written: Callable[..., dict[str, str]]) -> None:
    forms = written()
    whole = json.loads(forms["json"], parse_constant=pytest.fail)
    assert [trial["trial"] for trial in whole["trials"]] == [
        "resnet20_accumulation 16x8 lr=0.1",
        "resnet20_accumulation 64x2 lr=0.1",
    ]
    assert whole["trials"][0]["settings"]["lr"] == 0.1
    assert whole["measures"]["images_per_s"]["unit"] == "images/s"
    assert whole["trials"][0]["unlike"] == ["host tower against rack"]
    assert [one["why"] for one in whole["apart"]] == ["lr 0.7 against 0.1 on NVIDIA H100"]
    h100, a100 = whole["trials"][0]["machines"]
    assert (a100["machine"], a100["times_first"], a100["published"]) == ("NVIDIA A100", pytest.approx(0.5), False)
    assert [each["price_of_epoch"] for each in (h100, a100)] == pytest.approx([3 * 60 / 3600, 2 * 120 / 3600])
    rows = list(csv.DictReader(io.StringIO(forms["csv"])))
    assert [(row["trial"], row["machine"]) for row in rows[:2]] == [
        ("resnet20_accumulation 16x8 lr=0.1", name) for name in ("NVIDIA H100", "NVIDIA A100")
    ]
    assert float(rows[1]["times_first"]) == pytest.approx(0.5)
    assert (rows[0]["times_first_low"], rows[0]["unlike"]) == ("", "host tower against rack")
    for name in ("markdown", "latex"):
        said = re.sub(r"&#(\d+);", lambda mark: chr(int(mark[1])), forms[name])
        assert re.search(r"NVIDIA A100 [|&] 1 [|&] 1000 [|&] 0.500 ", said)
        assert "unlike besides: host tower against rack" in said
        assert "lr 0.7 against 0.1 on NVIDIA H100" in said
    assert forms["latex"].count("\\begin{tabular}") == forms["latex"].count("\\end{tabular}") == 2


def test_the_page_has_the_tables_the_charts_and_what_stands_apart(written: Callable[..., dict[str, str]]) -> None:
    text = written()["html"]
    said = words(text)
    assert "At an equal effective batch, what does accumulation cost" in said
    assert "unlike besides: host tower against rack" in said
    assert "lr 0.7 against 0.1 on NVIDIA H100" in said
    for title in ("Throughput by machine", "Memory against throughput", "Price against time"):
        assert text.count(f"<h3>{title}</h3>") == 1
    for tip in (
        "16x8 lr=0.1 on NVIDIA A100: 1000 images/s, 0.500 x NVIDIA H100",
        "64x2 lr=0.1 on NVIDIA H100: 2000 images/s, 4 GiB",
        "16x8 lr=0.1 on NVIDIA H100: 0.05 in 60 s",
    ):
        assert f'aria-label="{tip}"' in text
    assert re.findall(r"""(?:src|href|action)\s*=\s*["'](?!#)""", text) == []
    assert "default-src 'none'" in html.unescape(text)


def test_the_frontier_has_the_epochs_that_none_beats(two: list[str]) -> None:
    """By price 0.05 and 0.0667 on 16x8, and on 64x2 0.05 and 0.0444."""
    prices = {"NVIDIA H100": 3.0, "NVIDIA A100": 2.0}
    found = side_by_side.of_folders([Path(folder) for folder in two], "device_name", prices, ())
    (chart,) = [chart for chart in charts.draw(found.trials) if chart.kind == "across_price"]
    frontier = chart.text.partition("(")[2]
    assert "64x2 lr=0.1 on NVIDIA A100: 0.04444 in 80 s" in frontier
    assert "16x8 lr=0.1 on NVIDIA H100: 0.05 in 60 s" in frontier
    assert "16x8 lr=0.1 on NVIDIA A100" not in frontier
    assert len(chart.figures) == 4


def test_without_a_price_there_is_no_chart_of_it_and_no_memory_is_not_drawn(tmp_path: Path) -> None:
    cpu = {"device_name": "cpu", "device_count": 0, "peak_allocated_bytes": None, "launch_id": "c"}
    folders = [run(tmp_path / "h100", H100), run(tmp_path / "a100", A100), run(tmp_path / "cpu", cpu)]
    found = side_by_side.of_folders([Path(folder) for folder in folders], "device_name", {}, ())
    drawn = {chart.kind: chart for chart in charts.draw(found.trials)}
    assert list(drawn) == ["across_throughput", "across_memory"]
    assert "Not drawn, since it has no such memory: AMD EPYC." in drawn["across_memory"].text
    assert len(drawn["across_memory"].figures) == 2
    assert len(drawn["across_throughput"].figures) == 3


def test_what_rows_hold_is_text(written: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    wild = {"arm": HOSTILE, "experiment": HOSTILE, "host": HOSTILE}
    apart = {"arm": HOSTILE + "2", "experiment": HOSTILE}
    folders = [run(tmp_path / "x", {**wild, "device_name": HOSTILE}, apart), run(tmp_path / "y", {**wild, **A100})]
    forms = written(*folders)
    page = forms["html"]
    assert page.count("<script>") == page.count("</script>") == 1
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in forms["markdown"]
    lines = [line for line in forms["markdown"].splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1


def test_a_page_that_cannot_be_written_is_one_sentence(two: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("-o", "--json"):
        with pytest.raises(SystemExit) as ended:
            main(["across", *two, option, "/proc/x"])
        printed = capsys.readouterr()
        assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
        assert "cannot write /proc/x" in printed.err
