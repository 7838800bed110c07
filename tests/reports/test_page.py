"""The page and the plots show what was planted, beside the published figures, and nothing of it can run."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from planted_rows import HOSTILE, launches

from bench.record.run_folder import RunFolder
from launch.sweep import study_folder
from launch.sweep.study_file import Study
from reports.charts import memory, step_times
from reports.cli import main
from reports.page import REPLACED, study_command
from reports.tables import published
from reports.tables.summary import ALIKE, MEASURED, row_of, summarised, titles


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
        "16x8: median 10.02 ms, middle half 10.01 .. 10.03, 5 to 95% 10 .. 10.04, 1 outlier in 40 steps",
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


def test_plots_of_nothing_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {"status": "crashed", "error": "x"})
    main(["plot", str(tmp_path)])
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"note: no chart: no trial in {tmp_path} ended well")


def test_plots_are_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {"energy_per_image_j": 0.02}, {"arm": "128x1"})
    main(["plot", str(tmp_path)])
    told = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert set(told) == set((tmp_path / "plots").iterdir())
    kinds = ("memory", "accuracy", "cost", "loss", "step_times", "step_parts", "energy")
    assert {path.name for path in told} == {f"1_resnet20_accumulation_{k}.{e}" for k in kinds for e in ("png", "svg")}
    for path in told:
        data = path.read_bytes()
        if path.suffix == ".png":
            assert data.startswith(b"\x89PNG\r\n\x1a\n")
            assert int.from_bytes(data[16:20], "big") > 1000  # pixels wide
        else:
            assert ElementTree.fromstring(data).tag.endswith("svg")


def test_a_page_names_the_suite_and_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {})
    assert f"<title>resbench: {tmp_path.name}</title>" in page(tmp_path, capsys)


def test_rows_that_cannot_be_read_are_counted_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {})
    with open(tmp_path / "steps.csv", "a") as file:
        file.write("l0,not,a,row\nl0,0,0,8,true,0.1,1,1,,inf,0\n")
    with open(tmp_path / "epochs.csv", "a") as file:
        file.write("l0\n")
    with open(tmp_path / "trials.csv", "a") as file:
        file.write("damaged,x\n")
    said = words(page(tmp_path, capsys))
    assert "Not readable, and left out: 1 row of trials.csv, 1 row of epochs.csv, 2 rows of steps.csv." in said


def test_a_whole_run_has_no_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {})
    assert 'class="warning"' not in page(tmp_path, capsys)


# What tells trials apart


def test_trials_of_other_versions_are_in_no_chart_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {"accelerate": "1.2.0"}, {"accelerate": "1.15.0"})
    text = page(tmp_path, capsys)
    assert text.count("1 outlier in 40 steps") > 0
    assert "in 80 steps" not in text
    assert text.count('<table class="trials') == 2
    assert "accelerate 1.2.0" in words(text)
    assert "accelerate 1.15.0" in words(text)


def test_trials_that_differ_in_no_setting_have_names_and_boxes_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launches(tmp_path, {"threads": 4}, {"threads": 8, "images_per_s": 9000.0})
    text = page(tmp_path, capsys)
    assert "in 80 steps" not in text
    for threads in (4, 8):
        assert f'aria-label="16x8 threads={threads}: median 10.02 ms' in text
    assert [line.split()[:2] for line in table_lines(text, "trials")] == [["16x8", "4"], ["16x8", "8"]]


def test_a_name_is_no_longer_than_it_must_be() -> None:
    blank: dict[str, Any] = dict.fromkeys([*ALIKE, "batch_is_shared"])
    strong = [{"arm": "strong", "batch_is_shared": True, "processes": p, "micro_batch": 128 // p} for p in (1, 2)]
    weak = [{"arm": "weak", "batch_is_shared": False, "processes": p, "micro_batch": 128} for p in (1, 2)]
    rows = [{**blank, **row, "backend": "gloo" if row["processes"] == 2 else None} for row in strong + weak]
    assert list(map(titles(rows), rows)) == [
        f"{arm} {p}" for arm in ("strong", "weak") for p in ("1 process", "2 processes")
    ]
    rows[2]["micro_batch"] = 64
    assert titles(rows)(rows[2]) == "weak micro_batch=64 1 process"


# How to do it again


def test_a_study_s_command_is_shown_as_it_was_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a run"
    folder.mkdir()
    launches(folder, {})
    assert study_command(folder) == ""
    (folder / "study.toml").write_text(f"{REPLACED}'not closed\n")
    assert study_command(folder) == ""
    kept = Study(path=Path("x.toml"), text="[run]\n", experiments=("a",), words=(), replaced=("--lr", "0.1; rm -rf /"))
    study_folder.keep(folder, kept)
    said = html.unescape(words(page(folder, capsys)))
    assert f"All of it again: python -m launch run '{folder}/study.toml' --lr '0.1; rm -rf /'" in said


def test_a_trial_s_command_makes_as_many_launches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {}, {"repeat": 1}, {"arm": "128x1"})
    said = words(page(tmp_path, capsys))
    assert re.search(r"--arm 16x8 [^\n]*?--repeats 2 python", said)
    assert said.count("--repeats") == 1


# Charts


def test_a_chart_s_figures_are_text_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {"energy_per_image_j": 0.02}, {"energy_per_image_j": 0.04, "repeat": 1}, {"arm": "128x1"})
    text = page(tmp_path, capsys)
    for figure in ("16x8: 12346 images/s, 1.5 GiB", "16x8, epoch 3: 70%", "16x8: 0.03 J (0.02 .. 0.04)"):
        assert f"<li>{figure}</li>" in text
    assert "2 of 80 steps in all" not in text
    assert "3 of 120 steps in all" in text


def test_epochs_are_whole_numbers_on_the_axis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {}, {"arm": "128x1"})
    main(["plot", str(tmp_path)])
    drawn = ElementTree.parse(tmp_path / "plots" / "1_resnet20_accumulation_loss.svg")
    axis = next(element for element in drawn.iter() if element.get("aria-label", "").startswith("X-axis"))
    texts = [element.text for element in axis.iter() if element.tag.endswith("text")]
    assert texts == ["1", "2", "3", "epoch"]


def test_an_axis_does_not_round_a_memory_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {}, {"arm": "128x1", "images_per_s": 1000.0})
    main(["plot", str(tmp_path)])
    drawn = ElementTree.parse(tmp_path / "plots" / "1_resnet20_accumulation_memory.svg")
    assert "1.5" in [element.text for element in drawn.iter()]


@pytest.mark.parametrize(("gib", "near"), [(2, True), (80, False)])
def test_a_limit_is_drawn_where_it_leaves_room(
    gib: int, near: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launches(tmp_path, {"memory_limit_bytes": gib * 2**30}, {"arm": "128x1", "memory_limit_bytes": gib * 2**30})
    text = page(tmp_path, capsys)
    assert (f'aria-label="limit: {gib} GiB"' in text) == ("Red: the memory limit." in text) == near
    assert (f"A limit of {gib} GiB is beyond what is drawn." in text) != near


def test_an_epoch_that_no_axis_has_takes_no_other_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, {})
    for damaged in ({"epoch": None}, {"epoch": -5}, {"train_loss": float("inf"), "eval_accuracy": 1e308}):
        figures = {"launch_id": "l0", "epoch": 3, "train_loss": 9.0, "eval_accuracy": 0.9, "eval_images": 10000}
        RunFolder(tmp_path).append("epochs", [{**figures, **damaged}])
    text = page(tmp_path, capsys)
    assert "<li>16x8, epoch 3: 70%</li>" in text
    assert "<li>16x8, epoch 3: 1</li>" in text


def test_efficiency_is_throughput_over_that_of_as_many_single_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launches(
        tmp_path,
        {"images_per_s": 1000.0},
        {"processes": 2, "images_per_s": 1500.0, "compute_s": 0.015, "exposed_communication_s": 0.002},
    )
    text = page(tmp_path, capsys)
    assert "<li>16x8, 2 processes: 75%</li>" in text
    # 8 s in 400 windows are steps of 20 ms, of which 5 are waited for data: the rest is compute where one is alone.
    for figure in ("1 process: compute 15 ms", "1 process: data wait 5 ms", "2 processes: exposed communication 2 ms"):
        assert f"<li>16x8 {figure}</li>" in text


def test_a_box_is_of_quantiles_and_what_is_far_beyond_it_is_an_outlier() -> None:
    found = step_times.box("a", pd.Series([*range(1, 101), 152.0]))  # the bar is 50 wide, and ends at 76
    assert [found[name] for name in ("low", "first", "median", "third", "high")] == [6, 26, 51, 76, 96]
    assert found["tip"].endswith("1 outlier in 101 steps")
    assert step_times.box("a", pd.Series([*range(1, 101), 151.0]))["tip"].endswith("0 outliers in 101 steps")


# Where it goes


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


PARTS = ("validation", "evaluate_on")
NONE_ELSE = {name: None for part in PARTS for name in (f"{part}_images", f"published_{part}_accuracy")}


def judged(eval_images: int | None = 10000, **changes: Any) -> list[tuple[str, str, str]]:
    row = {
        "status": "ok",
        "train_images": 50000,
        "train_accuracy": 0.84,
        "eval_accuracy": 0.84,
        "epoch_time_s": 60.0,
        "published_train_accuracy": None,
        "published_eval_accuracy": 0.8434,
        "published_epoch_time_s": None,
        "published_differs": None,
        **NONE_ELSE,
    }
    return [(each.figure, each.verdict, each.why) for each in published.reproductions({**row, **changes}, eval_images)]


def test_an_accuracy_is_reproduced_as_far_as_chance_goes() -> None:
    assert judged() == [("eval accuracy", "reproduced", "")]
    # 1.96 sqrt(2 x 0.8434 x 0.1566 / 10000) is 1.007 points, and half of the last digit 0.005
    for distance, said in ((0.01011, "reproduced"), (0.01013, "differs")):
        for sign in (1, -1):
            assert judged(eval_accuracy=0.8434 + sign * distance) == [("eval accuracy", said, "")]
    assert judged(eval_accuracy=0.80, eval_images=100)[0][1] == "reproduced"
    assert judged(published_train_accuracy=0.70)[0] == ("train accuracy", "differs", "")
    for part in PARTS:
        own: dict[str, Any] = {f"published_{part}_accuracy": 0.61, f"{part}_images": 3000}
        figure = f"{part.replace('_', ' ')} accuracy"
        for here, said in ((0.62, "reproduced"), (0.64, "differs")):
            own[f"{part}_accuracy"] = here
            assert judged(**own)[1] == (figure, said, "")


def test_a_figure_of_whole_percents_may_have_been_rounded_to_them() -> None:
    figures: dict[str, Any] = {"published_eval_accuracy": None, "published_train_accuracy": 0.91}
    # 1.96 sqrt(2 x 0.91 x 0.09 / 50000) is 0.355 points, and half a percent
    assert judged(**figures, train_accuracy=0.9185)[0][1] == "reproduced"
    assert judged(**figures, train_accuracy=0.9186)[0][1] == "differs"
    assert published.rounding(0.9) == published.rounding(0.5) == published.rounding(0.91)


def test_what_cannot_be_compared_says_why() -> None:
    assert judged(published_differs="data=digits") == [("eval accuracy", "not comparable", "here data=digits")]
    assert judged(status="crashed") == [("eval accuracy", "not comparable", "the trial ended as crashed")]
    for unknown in (judged(eval_images=None), judged(eval_images=0), judged(eval_accuracy=None)):
        assert unknown == judged(eval_accuracy=float("nan"))
        assert unknown[0][1:] == ("not comparable", "the accuracy or its number of images is not known")
    assert judged(published_eval_accuracy=84.34)[0][1:] == ("not comparable", "the published accuracy is no share")
    assert judged(published_eval_accuracy=None) == []


def test_times_are_shown_and_not_judged() -> None:
    found = judged(published_epoch_time_s=540.0)
    assert found[1] == ("epoch time", "not comparable", "a time of another machine")
    row = {"status": "ok", "published_differs": None, "published_epoch_time_s": 540.0, "epoch_time_s": 540.0}
    row |= {"train_images": 1, "published_train_accuracy": None, "published_eval_accuracy": None, **NONE_ELSE}
    assert published.worst(published.reproductions(row, None)) == ""


def test_a_trial_is_called_what_its_worst_figure_is() -> None:
    def said(*each: str) -> str:
        return published.worst([published.Reproduction("eval accuracy", 0.5, 0.5, one) for one in each])

    assert said("reproduced", "differs", "not comparable") == "differs"
    assert said("reproduced", "not comparable") == "not comparable"
    assert said("reproduced") == "reproduced"


FROZEN: dict[str, Any] = {"experiment": "resnet152_frozen", "arm": "as_published", "published_where": "a notebook"}
FROZEN |= {"published_eval_accuracy": 0.8434}


def table_lines(text: str, name: str) -> list[str]:
    """The lines of a table's body, in words."""
    body = text.partition(f'<table class="{name}')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    return [words(line) for line in body.split("</tr>")[:-1]]


def test_published_figures_stand_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(
        tmp_path,
        {**FROZEN, "eval_accuracy": 0.91, "published_epoch_time_s": 540.0},
        {**FROZEN, "eval_accuracy": 0.93, "published_epoch_time_s": 540.0, "repeat": 1},
        {**FROZEN, "eval_accuracy": 0.8434, "precision": "bf16", "images_per_s": 10.0},
        {**FROZEN, "lr": 0.5, "published_differs": "lr=0.5", "images_per_s": 5.0},
    )
    text = page(tmp_path, capsys)
    assert table_lines(text, "beside") == [
        "as_published lr=0.1 fp32 eval accuracy 84.34% 92% (91..93) +7.66 1.01 differs",
        "as_published lr=0.1 fp32 epoch time 540 s 61.23 s not comparable a time of another machine",
        "as_published lr=0.1 bf16 eval accuracy 84.34% 84.34% +0.00 1.01 reproduced",
        "as_published lr=0.5 fp32 eval accuracy 84.34% 91.12% +6.78 not comparable here lr=0.5",
    ]
    assert [re.findall("differs|reproduced|not comparable", line) for line in table_lines(text, "trials")] == [
        ["differs"],
        ["reproduced"],
        ["not comparable"],
    ]
    assert "Source: a notebook." in words(text)
    assert published.RULE in html.unescape(words(text))
    (highlights,) = table_lines(text, "glance")
    assert highlights == (
        "resnet152_frozen 3 ok as_published lr=0.1 fp32 12346 images/s as_published lr=0.1 fp32 1.5 GiB "
        "as_published lr=0.1 fp32 92.0% (91.0..93.0) 1 reproduced 1 differs 1 not comparable"
    )


def test_the_source_s_curves_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launches(tmp_path, FROZEN)
    plant_training(tmp_path, 0.7, 0.8)
    text = page(tmp_path, capsys)
    assert 'aria-label="as_published, published, epoch 5: 84.34%"' in text
    assert 'aria-label="as_published, published, epoch 1: 78.08%"' in text
    assert 'aria-label="as_published, epoch 2: 80%"' in text


def plant_training(folder: Path, *accuracies: float) -> None:
    rows = [{"launch_id": "l0", "epoch": epoch, "train_accuracy": share} for epoch, share in enumerate(accuracies)]
    RunFolder(folder).append("epochs", rows)


# The frontier, and launches of one trial


def test_the_frontier_is_what_no_other_beats() -> None:
    points = [(1.0, 10.0), (2.0, 9.0), (2.0, 20.0), (3.0, 20.0), (0.5, 1.0)]
    assert memory.frontier(points) == {0, 2, 4}


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    rows = [{"status": "ok", "peak_rss_bytes": 2**30, "effective_batch": 128}] * 2
    blank: dict[str, Any] = dict.fromkeys([*ALIKE, *MEASURED, "repeat"])
    (found,) = summarised([row_of({**blank, **row}) for row in rows])
    assert (str(found["effective_batch"]), str(found["peak_rss_bytes"])) == ("128", str(2**30))
