"""Money to a target: planted prices x devices x times, in the tables, on the page, in charts and across machines."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from planted_rows import plant

from bench.record import to_target as record
from bench.record.run_folder import RunFolder
from reports import read
from reports.across import forms, side_by_side
from reports.cli import main
from reports.tables import prices, table, to_target
from reports.tables.prices import Prices, with_prices

H100, HOUR = "NVIDIA H100", 3600.0
# Arm -> the accuracy after each epoch of two seeds. 0.9 is reached after 1 and 3 epochs; by the other arm after 2 and
# never. An epoch takes half an hour, and its evaluation a tenth of that.
CURVES = {"16x16": ((0.9, 0.9, 0.9), (0.5, 0.6, 0.9)), "256x1": ((0.5, 0.9, 0.8), (0.5, 0.6, 0.7))}


def trained(folder: Path, devices: int = 2, **more: Any) -> Path:
    """A run on so many devices, whose trials had the target 0.9."""
    folder.mkdir()
    rows = []
    for arm, curves in CURVES.items():
        for seed, curve in enumerate(curves):
            launch = f"{folder.name}-{arm}-{seed}"
            each = {"epoch_time_s": HOUR / 2, "eval_time_s": HOUR / 20, "images": 1000}
            epochs = [{"epoch": number, "eval_accuracy": share, **each} for number, share in enumerate(curve)]
            RunFolder(folder).append("epochs", [{"launch_id": launch, **epoch} for epoch in epochs])
            row = {"launch_id": launch, "arm": arm, "seed": seed, "epochs": 3, "epochs_trained": 3}
            row |= {"effective_batch": 256, "device_count": devices, "processes": devices, "epoch_time_s": HOUR / 2}
            rows.append({**row, "target_accuracy": 0.9, **record.cells(epochs_of(epochs), 0.9), **more})
    plant(folder, *rows)
    return folder


def epochs_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"energy_j": None, **row} for row in rows]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return trained(tmp_path / "run")


def sheets(folder: Path, given: Prices, target: float | None = None) -> list[table.Sheet]:
    trials = to_target.with_target(read.trials(folder), read.epochs(folder)[0], target)
    return table.sheets(with_prices(trials, given))


def costs(folder: Path, given: Prices, target: float | None = None) -> dict[str, list[str]]:
    """Arm -> what the target cost, and with evaluation."""
    (sheet,) = sheets(folder, given, target)
    (found,) = to_target.tables(sheet.rows)
    places = [found.heads.index(head) for head in ("price to\ntarget", "price with\nevaluation")]
    return {line[0]: [line[place] for place in places] for line in found.lines}


def test_a_target_costs_the_price_of_all_devices_for_its_time(run: Path) -> None:
    """Two devices for 0.5 and 1.5 hours of training; the evaluations take a tenth more."""
    assert costs(run, {H100: 3.0}) == {
        "16x16": ["6 (3 .. 9)", "6.6 (3.3 .. 9.9)"],
        "256x1": ["- (6 .. never)", "- (6.6 .. never)"],
    }
    assert costs(run, {H100: 0.0})["16x16"] == ["0", "0"]
    lower = costs(run, {H100: 3.0}, 0.6)  # asked for afterwards; reached after 1, 2, 2 and 2 epochs
    assert lower == {"16x16": ["4.5 (3 .. 6)", "4.95 (3.3 .. 6.6)"], "256x1": ["6", "6.6"]}


def test_without_a_price_nothing_costs_anything(run: Path) -> None:
    (sheet,) = sheets(run, {})
    (found,) = to_target.tables(sheet.rows)
    assert not [head for head in (*sheet.heads, *found.heads) if "price" in head]
    assert not [note for note in (*found.notes, sheet.machine) if "price" in note]


def test_the_page_and_the_table_say_the_price_and_what_it_comes_to(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["show", str(run), "--price", f"{H100}=3"])
    text = capsys.readouterr().out
    assert text.count(f"price: 3 an hour for each {H100}") == 2  # beneath both tables
    assert "6.6 (3.3 .. 9.9)" in text
    (head,) = [line for line in text.splitlines() if "epoch s" in line]
    assert "an epoch" in head  # 3 for two devices and half an hour
    main(["page", str(run), "--price", f"{H100}=3"])
    page = html.unescape((run / "report.html").read_text())
    assert "<td>6.6 (3.3 .. 9.9)</td>" in page
    assert "Accuracy over price, effective batch 256" in page
    assert "16x16: 90% for 6 (3 .. 9 of those that did), 2 of 2 launches reached it" in page
    assert f"The price: 3 an hour for each {H100}." in " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_the_curve_over_price_is_that_over_time_in_money(run: Path) -> None:
    pytest.importorskip("altair")
    from reports.charts import draw

    (sheet,) = sheets(run, {H100: 3.0})
    epochs, steps = read.epochs(run)[0], read.steps(run)[0]
    charts = {chart.kind: chart for chart in draw(sheet.rows, epochs, steps)}
    drawn = [row for rows in charts["accuracy_over_price_256"].drawing.to_dict()["datasets"].values() for row in rows]
    curve = [row for row in drawn if row.get("launch") == "run-16x16-1"]
    assert [row["x"] for row in curve] == pytest.approx([3, 6, 9])
    assert [row["y"] for row in curve] == [50, 60, 90]
    (mark,) = [row for row in drawn if "tip" in row]
    assert (mark["x"], mark["low"], mark["high"]) == (6, 3, 9)
    plain = draw(sheets(run, {})[0].rows, epochs, steps)
    assert [chart.kind for chart in plain] == [kind for kind in charts if "price" not in kind]


@pytest.mark.parametrize("command", ["show", "page", "plot"])
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["TPU=2"], "no launch ran on 'TPU', which has a --price; give NVIDIA H100"),
        ([f"{H100}=-1"], "--price: 'NVIDIA H100=-1' is not DEVICE=PRICE, such as 'NVIDIA H100=2.49'"),
        ([f"{H100}=much"], "'NVIDIA H100=much' is not DEVICE=PRICE"),
        ([f"{H100}=1", f"{H100}=2"], "--price: 'NVIDIA H100' is given twice; give it once"),
    ],
)
def test_a_price_that_cannot_be_is_one_sentence_and_nothing_is_written(
    command: str, words: list[str], error: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.iterdir())
    with pytest.raises(SystemExit) as ended:
        main([command, str(run), "--price", *words])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert error in printed.err
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 1),
        ({"device_count": 8}, 8),
        ({"device_count": None}, None),
        ({"devices": "a: 4 x NVIDIA H100; b: 4 x NVIDIA H100", "device_count": 8}, 8),
        ({"devices": "a: 4 x NVIDIA H100; b: 4 x NVIDIA A100", "device_count": 8}, None),
        ({"device_name": "cpu", "device_count": 0, "machines": 3, "devices": "a: 2 x CPU AMD EPYC"}, 3),
    ],
    ids=str,
)
def test_the_devices_are_those_of_the_group_and_of_one_kind(
    changes: dict[str, Any], count: int | None, tmp_path: Path
) -> None:
    plant(tmp_path, changes)
    name = "AMD EPYC" if changes.get("device_name") == "cpu" else H100
    (record,) = with_prices(read.trials(tmp_path), {name: HOUR}).to_dict("records")
    row = {str(key): None if pd.isna(value) else value for key, value in record.items()}
    assert prices.price(row, 2.0) == (None if count is None else 2.0 * count)
    assert bool(prices.remarks(row)) == ("A100" in str(changes))


def test_no_price_is_infinite() -> None:
    row = {prices.PRICE: 1e8, "device_count": 8, "device_name": H100, "devices": None, "machines": 1}
    assert prices.price(row, 1e308) is None
    assert prices.price(row, None) is None


def test_machines_side_by_side_have_a_price_to_the_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each seed is a trial of its own there. The slow machine is cheaper; of 256x1, seed 1 never gets there."""
    folders = [trained(tmp_path / "h100"), trained(tmp_path / "a100", 1, device_name="NVIDIA A100", processes=2)]
    given = {H100: 3.0, "NVIDIA A100": 1.0}
    found = json.loads(forms.as_json(side_by_side.of_folders(folders, "device_name", given, ())))
    known = {
        (trial["settings"]["arm"], trial["settings"]["seed"]): [each["price_to_target"] for each in trial["machines"]]
        for trial in found["trials"]
    }
    assert known == {("16x16", 0): [3, 0.5], ("16x16", 1): [9, 1.5], ("256x1", 0): [6, 1], ("256x1", 1): [None, None]}
    main(["across", *map(str, folders), "--price", f"{H100}=3"])
    text = capsys.readouterr().out
    assert text.count("price to") == 4
    assert "never" in text
    assert f"price: 3 an hour for each {H100}" in text
    plant(tmp_path / "h100", {"launch_id": "without", "lr": 0.7})
    plant(tmp_path / "a100", {"launch_id": "without too", "lr": 0.7, "device_name": "NVIDIA A100"})
    main(["across", *map(str, folders), "--price", f"{H100}=3"])
    assert capsys.readouterr().out.count("price to") == 4  # a column where some row has it


def test_a_run_of_several_machines_is_priced_in_its_section_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "all")
    plant(tmp_path / "all", {"launch_id": "b", "host": "rack", "arm": "16x16", "effective_batch": 256})
    plant(tmp_path / "all", {"launch_id": "c", "arm": "16x16", "effective_batch": 256})
    main(["show", str(tmp_path / "all"), "--price", f"{H100}=3"])
    section = capsys.readouterr().out.partition("Across machines, by host:\n")[2]
    assert "price of" in section
