"""The page and the plots show what was planted, beside the published figures, and nothing of it can run."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from test_reports_table import plant

from bench.record import RunFolder
from reports import published
from reports.charts import memory
from reports.cli import main
from reports.summary import ALIKE, MEASURED, known, summarised

HOSTILE = '<script>document.title="run"</script>"><img src=x onerror=alert(1)>\u2028=1+1'


def launches(folder: Path, *rows: dict[str, Any]) -> None:
    """Rows of trials.csv, each with three epochs and 40 measured steps of about 10 ms, one of 50 ms among them."""
    plant(folder, *({"launch_id": f"l{number}", **row} for number, row in enumerate(rows)))
    for launch in (f"l{number}" for number in range(len(rows))):
        for epoch in range(3):
            figures = {"train_loss": 2 - 0.5 * epoch, "eval_accuracy": 0.5 + 0.1 * epoch, "eval_images": 10000}
            RunFolder(folder).append("epochs", [{"launch_id": launch, "epoch": epoch, **figures}])
        times = [0.05 if window == 7 else 0.01 + 0.00001 * (window % 5) for window in range(40)]
        step = {"launch_id": launch, "epoch": 0, "measured": True}
        RunFolder(folder).append("steps", [{**step, "measured": False, "step_time_s": 9.0}])
        RunFolder(folder).append("steps", [{**step, "window": w, "step_time_s": time} for w, time in enumerate(times)])


def page(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    main(["page", str(folder), "-o", str(folder / "page.html")])
    assert capsys.readouterr().out == f"{folder / 'page.html'}\n"
    return (folder / "page.html").read_text()


def words(markup: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", markup).split())


def test_the_page_says_what_was_measured_where_and_how_to_do_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"arm": "128x1", "images_per_s": 2500.0, "micro_batch": 1280}
    launches(tmp_path, {"images_per_s": 1900.0}, {"images_per_s": 2100.0, "repeat": 1}, other)
    text = page(tmp_path, capsys)
    said = words(text)
    assert "At an equal effective batch, what does accumulation cost" in said
    assert "2000 (1900..2100)" in said
    assert "NVIDIA H100, torch 2.9.0, driver 550.54.15" in said
    assert "commit 0123456789ab" in said
    assert re.search(r"python -m launch run resnet20_accumulation --arm 128x1 .*--micro-batch 1280 ", said)
    assert said.index("128x1") < said.index("16x8")
    for title in ("Memory against throughput", "Accuracy by epoch", "Loss by epoch", "Step times", "Where a step"):
        assert title in said
    assert "Scaling efficiency" not in said
    assert "Energy" not in said


def test_marks_say_their_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {}, {"arm": "128x1", "images_per_s": 20000.0, "peak_allocated_bytes": 2**32})
    text = page(tmp_path, capsys)
    for tip in (
        "16x8: 12346 images/s, 1.5 GiB",
        "128x1: 20000 images/s, 4 GiB",
        "16x8, epoch 3: 70%",
        "16x8: median 10.02 ms, middle half 10.01 .. 10.03, 5 to 95% 10 .. 10.04, 1 outliers in 40 steps",
        "16x8: a step of 50 ms",
    ):
        assert f'aria-label="{tip}"' in text


def test_it_is_one_file_that_asks_for_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {}, {"arm": "128x1"})
    text = page(tmp_path, capsys)
    assert re.findall(r"""(?:src|href|action)\s*=\s*["'](?!#)""", text) == []
    assert re.findall(r"url\(|@import|<link|<iframe", text) == []
    assert "default-src 'none'" in html.unescape(text)
    assert len(text) < 1_000_000


def test_what_rows_hold_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = {"arm": "128x1", "experiment": HOSTILE, "status": "crashed", "error": HOSTILE}
    launches(tmp_path, {"arm": HOSTILE, "experiment": HOSTILE}, failed)
    text = page(tmp_path, capsys)
    assert text.count("<script>") == text.count("</script>") == 1
    assert "<img" not in text
    assert "&lt;script&gt;" in text
    main(["plot", str(tmp_path), "-o", str(tmp_path / "plots")])
    assert {path.parent for path in tmp_path.rglob("*.png")} == {tmp_path / "plots"}


def test_plots_are_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {"energy_per_image_j": 0.02}, {"arm": "128x1"})
    main(["plot", str(tmp_path)])
    told = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert set(told) == set((tmp_path / "plots").iterdir())
    kinds = ("memory", "accuracy", "loss", "step_times", "step_parts", "energy")
    assert {path.name for path in told} == {f"1_resnet20_accumulation_{k}.{e}" for k in kinds for e in ("png", "svg")}
    for path in told:
        data = path.read_bytes()
        if path.suffix == ".png":
            assert data.startswith(b"\x89PNG\r\n\x1a\n")
            assert int.from_bytes(data[16:20], "big") > 1000  # pixels wide
        else:
            assert ElementTree.fromstring(data).tag.endswith("svg")


def test_a_run_without_a_trial_has_a_page_that_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder(tmp_path).append("trials", [])
    assert "No trial has ended in this folder yet." in page(tmp_path, capsys)


def test_rows_that_cannot_be_read_are_counted_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {})
    with open(tmp_path / "steps.csv", "a") as file:
        file.write("l0,not,a,row\nl0,0,0,8,true,0.1,1,1,,inf,0\n")
    assert "Not readable, and left out: 2 rows of steps.csv." in page(tmp_path, capsys)


@pytest.mark.parametrize("out", ["FOLDER/missing/page.html", "FOLDER", "/proc/page.html"])
def test_where_it_cannot_be_written_is_one_sentence(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launches(tmp_path, {})
    with pytest.raises(SystemExit) as ended:
        main(["page", str(tmp_path), "-o", out.replace("FOLDER", str(tmp_path))])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot write ")


# Beside what was published


def judged(eval_images: int | None = 10000, **changes: Any) -> tuple[str, str]:
    row = {
        "status": "ok",
        "train_images": 50000,
        "train_accuracy": 0.84,
        "eval_accuracy": 0.84,
        "published_train_accuracy": None,
        "published_eval_accuracy": 0.8434,
        "published_differs": None,
    }
    found = published.judge({**row, **changes}, eval_images)
    return found.said, found.why


def test_an_accuracy_is_reproduced_as_far_as_chance_goes() -> None:
    assert judged() == ("reproduced", "")
    # 1.96 sqrt(2 x 0.8434 x 0.1566 / 10000) is 1.01 points, and half a tenth for rounding
    assert judged(eval_accuracy=0.8434 - 0.0105)[0] == "reproduced"
    assert judged(eval_accuracy=0.8434 - 0.0108) == ("differs", "eval accuracy -1.1 points, more than 1.1")
    assert judged(eval_accuracy=0.80, eval_images=100)[0] == "reproduced"
    assert judged(published_train_accuracy=0.70) == ("differs", "train accuracy +14.0 points, more than 0.6")


def test_what_cannot_be_compared_says_why() -> None:
    assert judged(published_differs="data=digits") == ("not comparable", "here data=digits")
    assert judged(status="crashed") == ("not comparable", "the trial ended as crashed")
    assert judged(eval_images=None)[0] == "not comparable"
    assert judged(published_eval_accuracy=None) == ("", "")


def test_the_verdict_and_the_source_s_curve_are_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"experiment": "resnet152_frozen", "arm": "as_published", "published_where": "a notebook"}
    launches(tmp_path, row | {"published_eval_accuracy": 0.8434, "eval_accuracy": 0.91})
    text = page(tmp_path, capsys)
    assert "differs eval accuracy +6.7 points, more than 1.1" in words(text)
    assert 'aria-label="as_published, published, epoch 5: 84.34%"' in text


# The frontier, and launches of one trial


def test_the_frontier_is_what_no_other_beats() -> None:
    points = [(1.0, 10.0), (2.0, 9.0), (2.0, 20.0), (3.0, 20.0), (0.5, 1.0)]
    assert memory.frontier(points) == {0, 2, 4}


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    rows = [{"status": "ok", "peak_rss_bytes": 2**30, "effective_batch": 128}] * 2
    blank: dict[str, Any] = dict.fromkeys([*ALIKE, *MEASURED, "repeat"])
    (found,) = summarised([known({**blank, **row}) for row in rows])
    assert (str(found["effective_batch"]), str(found["peak_rss_bytes"])) == ("128", str(2**30))
