"""What goes out is what was planted: typed, with units, and with nothing that another program would run."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from event_files import read_back
from planted_rows import MACHINE, plant

from bench.machine import environment
from bench.record.columns import columns
from bench.record.run_folder import RunFolder
from reports.cli import main

HOSTILE = "=1+1 | <b>x</b> \\input{x} & 50% $y$ #z `q`"


def exported(folder: Path, form: str, capsys: pytest.CaptureFixture[str]) -> str:
    main(["export", str(folder), "--format", form])
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def test_json_has_every_column_of_every_launch_and_its_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, {}, {"arm": HOSTILE, "status": "oom", "images_per_s": None})
    found = json.loads(exported(tmp_path, "json", capsys), parse_constant=pytest.fail)
    assert list(found["columns"]) == list(found["rows"][0]) == [column.name for column in columns("trials")]
    assert found["columns"]["epoch_time_s"]["unit"] == "s"
    first, second = found["rows"]
    assert (first["images_per_s"], first["micro_batch"], first["compile"]) == (12345.678, 64, "none")
    assert (second["arm"], second["status"], second["images_per_s"]) == (HOSTILE, "oom", None)


def test_json_has_no_infinity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trials.csv").write_text("launch_id,images_per_s,train_loss\na,inf,nan\n")
    (row,) = json.loads(exported(tmp_path, "json", capsys), parse_constant=pytest.fail)["rows"]
    assert (row["images_per_s"], row["train_loss"]) == (None, None)


def test_markdown_is_a_table_that_text_cannot_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, {"arm": HOSTILE}, {"images_per_s": 77.0})
    lines = [line for line in exported(tmp_path, "markdown", capsys).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert "<b>" not in "".join(lines)
    assert "| 12346 |" in lines[2]
    assert "| 77 |" in lines[3]


def test_latex_is_a_tabular_that_text_cannot_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, {"arm": HOSTILE})
    text = exported(tmp_path, "latex", capsys)
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 1
    (line,) = [line for line in text.splitlines() if "12346" in line]
    for mark in ("\\input", " $", " #", "50%"):
        assert mark not in line
    heads = text.partition("\\toprule\n")[2].partition("\\\\")[0]
    assert line.replace("\\&", "").count("&") == heads.count("&")


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_what_the_machine_gives_at_most_is_in_the_tables(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of a ceiling of 8 TFLOP/s."""
    plant(tmp_path, {"model_flops_per_s": 4e12, "precision": "bf16", "device_count": 1})
    machine = environment.machine() | MACHINE
    convolution = {"kind": "convolution", "work": "w", "number_format": "bf16"}
    most = {"launch_id": "most", "measuring": 1, "flops_per_s": 8e12}
    RunFolder(tmp_path).append("ceilings", [{**most, **machine, **convolution}])
    text = exported(tmp_path, form, capsys)
    assert "measured at most, TFLOP/s: bf16 8" in html.unescape(text)
    assert re.search(r"[|&] 50(\.0)? ", text)


def test_parquet_is_typed_and_says_its_units(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    plant(tmp_path, {}, {"peak_rss_bytes": None})
    main(["export", str(tmp_path), "--format", "parquet", "-o", str(tmp_path / "x.parquet")])
    found = parquet.read_table(io.BytesIO((tmp_path / "x.parquet").read_bytes()))
    assert found.column("peak_rss_bytes").to_pylist() == [2**29, None]
    assert str(found.schema.field("peak_rss_bytes").type) == "int64"
    assert found.schema.field("peak_rss_bytes").metadata[b"unit"] == b"bytes"


def test_a_file_is_written_in_place_of_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, {})
    main(["export", str(tmp_path), "--format", "json", "-o", str(tmp_path / "x.json")])
    assert capsys.readouterr().out == ""
    assert len(json.loads((tmp_path / "x.json").read_text())["rows"]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["FOLDER"], "required: --format"),
        (["FOLDER", "--format", "xml"], "--format is 'xml'; choose from: json"),
        (["FOLDER", "--format", "parquet"], "parquet is binary; give -o FILE"),
        (["FOLDER", "--format", "json", "-o", "/proc/x"], "cannot write /proc/x"),
        (["FOLDER/no", "--format", "json"], "no FOLDER/no/trials.csv"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, {})
    with pytest.raises(SystemExit) as ended:
        main(["export", *(word.replace("FOLDER", str(tmp_path)) for word in words)])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert said.replace("FOLDER", str(tmp_path)) in printed.err


# TensorBoard


def hyperparameters(folder: Path) -> dict[str, Any]:
    """As TensorBoard's plugin finds them."""
    accumulator: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.hparams import metadata

    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    found = metadata.parse_session_start_info_plugin_data(content).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}


def test_tensorboard_has_the_epochs_of_each_launch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    wild = {"launch_id": "a", "arm": "../../up" + "x" * 300, "started_at": "0001-01-01T00:00:00"}
    plant(tmp_path, wild, wild | {"launch_id": "../b"}, wild | {"launch_id": "//b"}, {"launch_id": "never_trained"})
    for launch in ("a", "../b", "//b"):
        rows = [{"launch_id": launch, "epoch": e, "train_loss": 2.0 - e, "eval_accuracy": None} for e in range(3)]
        RunFolder(tmp_path).append("epochs", rows)
    for _ in range(2):  # a second time replaces the first
        main(["tensorboard", str(tmp_path)])
        assert capsys.readouterr().out.startswith("3 launches; ")
    folders = sorted((tmp_path / "tensorboard").iterdir())
    assert len(folders) == 3
    for folder in folders:
        assert len(list(folder.iterdir())) == 1
        told = read_back(folder)
        assert told.pop("_hparams_/session_start_info", None) is not None
        assert told == {"train_loss": [(0, 2.0), (1, 1.0), (2, 0.0)]}


def test_tensorboard_has_the_measured_steps_in_their_places_and_the_settings_that_vary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    plant(tmp_path, {"launch_id": "a", "lr": 0.5}, {"launch_id": "b", "lr": 0.25, "precision": "bf16"})
    for launch in "ab":  # epochs of three windows, of which the first is warm-up
        steps = [{"launch_id": launch, "epoch": n // 3, "window": n % 3, "measured": n > 0} for n in range(6)]
        RunFolder(tmp_path).append("steps", [row | {"step_time_s": n + 1, "images": 8} for n, row in enumerate(steps)])
    with open(tmp_path / "steps.csv", "a") as damaged:
        damaged.write("a,b\n")
    main(["tensorboard", str(tmp_path), "-o", str(tmp_path / "log")])
    printed = capsys.readouterr()
    assert printed.err == "note: 1 row of steps.csv cannot be read; the others are here\n"
    first, second = sorted((tmp_path / "log").iterdir(), key=lambda folder: folder.name[-1])
    told = read_back(first)
    assert told["steps/step_time_s"] == [(n, n + 1) for n in range(1, 6)]
    assert told["steps/images"] == [(n, 8) for n in range(1, 6)]
    assert "steps/train_loss" not in told
    assert hyperparameters(first) == {"lr": 0.5, "precision": "no"}
    assert hyperparameters(second) == {"lr": 0.25, "precision": "bf16"}


def test_numbers_that_tensorboard_cannot_hold_do_no_harm(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    plant(tmp_path, {"launch_id": "a"})
    RunFolder(tmp_path).append("epochs", [{"launch_id": "a", "epoch": 2**52, "train_loss": 1e300, "eval_loss": -1.5}])
    far = {"launch_id": "a", "epoch": 2**40, "window": 2**40, "measured": True, "step_time_s": 1}
    RunFolder(tmp_path).append("steps", [far])
    main(["tensorboard", str(tmp_path)])
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert read_back(folder) == {"eval_loss": [(2**52, -1.5)]}
