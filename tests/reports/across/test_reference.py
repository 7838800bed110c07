"""Published figures have a source and a unit, or are refused; beside ours they are marked, and only where alike."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from planted_rows import plant

from bench.errors import UsageError
from models.names import NAMES
from reports.across import charts, forms, reference, side_by_side
from reports.across.reference import Published
from reports.cli import main

# An RTX 3090 that trains ResNet-152 as timm's benchmark does, half as fast.
MINE: dict[str, Any] = {
    "device_name": "NVIDIA GeForce RTX 3090",
    "model": "resnet152",
    "image_size": 224,
    "precision": "fp16",
    "micro_batch": 192,
    "images_per_s": 250.72,
}


def planted(folder: Path, **changes: str) -> Path:
    """A copy of the reference whose last row has these cells."""
    path = folder / "reference.csv"
    shutil.copyfile(reference.REFERENCE, path)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    rows[-1] |= changes
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, reference.NAMES, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_every_figure_has_a_source_a_unit_and_a_model_of_ours(tmp_path: Path) -> None:
    found = reference.published()
    assert len(found) >= 28
    assert len(set(found)) == len(found)
    for each in found:
        assert each.source.startswith("https://")
        assert each.model in NAMES
        assert 0 < each.images_per_s < 1e6
    assert reference.published(planted(tmp_path)) == found


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"unit": "images/s/GPU"}, "the unit 'images/s/GPU' is not images/s; convert the figure, or remove the row"),
        ({"unit": ""}, "the unit '' is not images/s"),
        ({"source": ""}, "a published figure without a source; give it, or remove the row"),
        ({"source": "  "}, "a published figure without a source"),
        ({"model": ""}, "a published figure without a model"),
        ({"device": ""}, "a published figure without a device"),
        ({"devices": ""}, "a published figure without its number of devices"),
        ({"devices": "0"}, "devices '0' is no whole number from 1 on"),
        ({"batch": "1.5"}, "batch '1.5' is no whole number from 1 on"),
        ({"throughput": "nan"}, "throughput 'nan' is no number of images/s above 0"),
        ({"throughput": "0"}, "throughput '0' is no number"),
        ({"precision": "half"}, "no precision 'half'; choose from: FP32, TF32, FP16, BF16, AMP, or leave it empty"),
        ({"layout": "NHWC"}, "no layout 'NHWC'; choose from: channels_last, contiguous"),
        ({"date": "May"}, "the date 'May' is none; give 2024, 2024-03 or 2024-03-31, or nothing"),
    ],
    ids=str,
)
def test_a_wrong_row_is_refused_with_its_line(
    changes: dict[str, str],
    error: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = planted(tmp_path, **changes)
    last = len(path.read_text().splitlines())
    with pytest.raises(UsageError) as refused:
        reference.published(path)
    assert str(refused.value).startswith(f"{path}, line {last}: {error}")
    monkeypatch.setattr(reference.published, "__defaults__", (path,))
    with pytest.raises(SystemExit) as ended:
        main(["across", str(tmp_path), "--with-published"])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = planted(tmp_path)
    path.write_text(path.read_text().partition("\n")[2])
    with pytest.raises(UsageError, match="does not begin with the columns"):
        reference.published(path)
    with pytest.raises(UsageError, match="cannot read"):
        reference.published(tmp_path / "missing.csv")


def test_an_owner_of_an_rtx_3090_sees_what_resnet_152_should_do_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One machine of ours is enough for that."""
    plant(tmp_path, MINE)
    main(["across", str(tmp_path), "--with-published"])
    text = capsys.readouterr().out
    (theirs,) = [line.split() for line in text.splitlines() if line.startswith(" RTX 3090 (published) ")]
    assert theirs[-2:] == ["501.4", "2.000"]
    assert "published, another code: https://github.com/huggingface/pytorch-image-models/" in text
    apart = text.partition("Not side by side:\n")[2]
    assert "370.08 images/s on RTX 3090 (published): memory_format channels_last against contiguous" in apart
    assert "3843.06 images/s on 8 x A100-SXM4-80GB (published): devices 1 against 8" in apart
    assert "resnet50" not in apart


def test_what_the_source_leaves_open_is_said(tmp_path: Path) -> None:
    figure = Published("resnet152", "A100", 1, 345.0, "a document", batch=32, date="2024")
    assert figure.about(MINE) == (
        "published, another code: a document, 2024; batch 32 a device against 192; "
        "it does not state image size (taken as 224), precision (so there is no ratio), layout"
    )


ROW: dict[str, Any] = {**MINE, "processes": 1, "tf32": False, "memory_format": "channels_last", "trainable": "all"}
FULL = Published("resnet152", "A100", 1, 345.0, "a document", 224, "AMP", "channels_last", 192)


@pytest.mark.parametrize(
    ("change", "unlike"),
    [
        ({}, []),
        ({"precision": "bf16"}, []),
        ({"micro_batch": 8}, []),  # the batch is said, and no reason to stand apart
        ({"precision": "no"}, ["precision fp32 against AMP"]),
        ({"precision": "no", "tf32": True}, ["precision tf32 against AMP"]),
        ({"processes": 8}, ["devices 8 against 1"]),
        ({"image_size": 32}, ["image_size 32 against 224"]),
        ({"memory_format": "contiguous"}, ["memory_format contiguous against channels_last"]),
        ({"trainable": "head"}, ["trainable head against all"]),
        ({"model": "resnet50"}, None),
    ],
    ids=str,
)
def test_a_figure_stands_beside_what_is_alike(change: dict[str, Any], unlike: list[str] | None) -> None:
    assert reference.differences({**ROW, **change}, FULL) == unlike


def test_an_image_size_that_is_not_stated_is_224(tmp_path: Path) -> None:
    """At 32 pixels a network has about a fiftieth of the work."""
    figure = Published("resnet152", "A100", 1, 345.0, "a document", precision="AMP")
    assert reference.differences(ROW, figure) == []
    assert reference.differences({**ROW, "image_size": 32}, figure) == [
        "image_size 32 against 224, which the source does not state"
    ]
    plant(tmp_path, {**MINE, "image_size": 32})
    with pytest.raises(UsageError, match="all launches are of one machine"):
        side_by_side.of_folders([tmp_path], "device_name", {}, [figure])


def test_a_precision_that_is_not_stated_has_no_ratio(tmp_path: Path) -> None:
    plant(tmp_path, {**MINE, "precision": "no", "tf32": False})
    open_ = Published("resnet152", "A100", 1, 1000.0, "a document", 224)
    stated = Published("resnet152", "B200", 1, 501.44, "a document", 224, "FP32")
    (trial,) = side_by_side.of_folders([tmp_path], "device_name", {}, [open_, stated]).trials
    records = {line.machine: forms.record(line, trial) for line in trial.lines}
    unstated = records["A100 (published)"]
    assert (unstated["images_per_s"], unstated["times_first"]) == (1000.0, None)
    assert "precision (so there is no ratio)" in unstated["notes"]
    assert records["B200 (published)"]["times_first"] == pytest.approx(2)
    (chart,) = charts.draw([trial])
    tips = {tip.partition(" on ")[2] for tip in chart.figures}
    assert "A100 (published): 1000 images/s" in tips
    assert "B200 (published): 501.4 images/s, 2.000 x NVIDIA GeForce RTX 3090" in tips


def test_the_figure_of_the_same_device_is_first(tmp_path: Path) -> None:
    plant(tmp_path, {**MINE, "launch_id": "a"})
    figures = [
        Published("resnet152", "B200", 1, 9000.0, "a document"),
        Published("resnet152", "RTX 3090", 1, 500.0, "a document"),
        Published("resnet152", "H100", 1, 9500.0, "a document"),
        Published("resnet18", "H100", 1, 9500.0, "a document"),
    ]
    found = side_by_side.of_folders([tmp_path], "device_name", {}, figures)
    (trial,) = found.trials
    names = [line.machine.removesuffix(" (published)") for line in trial.lines]
    assert names == ["NVIDIA GeForce RTX 3090", "RTX 3090", "H100", "B200"]
    assert found.apart == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"memory_format": "contiguous", "image_size": 160},
            "the nearest published figure, 370.08 images/s of resnet152 on RTX 3090, stands apart: image_size 160 "
            "against 224",
        ),
        (
            {"model": "resnet20"},
            "no published figure is of resnet20, only of resnet101, resnet152, resnet18, resnet34, resnet50",
        ),
    ],
)
def test_where_no_figure_stands_beside_a_run_the_error_says_what_keeps_the_nearest_apart(
    changes: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, {**MINE, **changes})
    with pytest.raises(SystemExit) as ended:
        main(["across", str(tmp_path), "--with-published"])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert printed.err.strip().endswith(said)
    with pytest.raises(SystemExit):
        main(["across", str(tmp_path)])
    assert "published" not in capsys.readouterr().err
