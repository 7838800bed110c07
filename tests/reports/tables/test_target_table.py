"""The table of what a target took, and its chart: medians over seeds, and how many of how many reached it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from planted_rows import plant

from bench.record.run_folder import RunFolder
from reports import read
from reports.cli import main
from reports.tables import table, to_target

# Arm, seed -> the accuracy after each epoch of 10 s (16x16) or 8 s (256x1). 0.9 is reached after 3, 2, 4 epochs; of
# 256x1 by one seed of three, after 2.
CURVES: dict[tuple[str, int], tuple[float, ...]] = {
    ("16x16", 0): (0.5, 0.8, 0.9, 0.95),
    ("16x16", 1): (0.6, 0.92, 0.89, 0.95),
    ("16x16", 2): (0.5, 0.7, 0.8, 0.93),
    ("256x1", 0): (0.6, 0.9, 0.8, 0.85),
    ("256x1", 1): (0.6, 0.7, 0.875, 0.85),
    ("256x1", 2): (0.6, 0.7, 0.8, 0.85),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose trials had no target; energy was measured."""
    rows = []
    for (arm, seed), curve in CURVES.items():
        launch = f"{arm}-{seed}"
        micro, _, accumulate = arm.partition("x")
        batch = {"micro_batch": int(micro), "accumulate": int(accumulate), "effective_batch": 256}
        rows.append({"launch_id": launch, "arm": arm, "seed": seed, "epochs": 4, "epochs_trained": 4, **batch})
        for epoch, share in enumerate(curve):
            took = 10.0 if arm == "16x16" else 8.0
            more: dict[str, Any] = {"epoch_time_s": took, "eval_time_s": 0.5, "energy_j": 30 * took, "images": 1000}
            RunFolder(tmp_path).append(
                "epochs", [{"launch_id": launch, "epoch": epoch, "eval_accuracy": share, **more}]
            )
    plant(tmp_path, *rows)
    return tmp_path


def words(text: str, arm: str) -> list[str]:
    """The last line of the arm: that of the target's table."""
    return [line for line in text.splitlines() if line.startswith(f" {arm} ")][-1].split("  ")


def test_medians_and_ranges_over_seeds_and_how_many_reached_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["show", str(run), "--target-accuracy", "0.9"])
    text = capsys.readouterr().out
    assert "to 90% on the evaluation set" in text
    found = [cell.strip() for cell in words(text, "16x16") if cell.strip()]
    assert found[1:] == [
        *("256", "3 of 3", "3 (2 .. 4)", "30 (20 .. 40)", "31.5 (21 .. 42)", "900 (600 .. 1200)"),
        "3000 (2000 .. 4000)",
    ]
    # Half of the launches did not get there: the one that did is no median.
    lucky = [cell.strip() for cell in words(text, "256x1") if cell.strip()]
    assert lucky[1:5] == ["256", "1 of 3", "- (2 .. never)", "- (16 .. never)"]
    assert lucky[-1] == "87.5% after epoch 3"
    assert "90% not reached; best 87.5% after epoch 3" in text
    main(["show", str(run)])
    assert "on the evaluation set" not in capsys.readouterr().out


def test_what_is_not_known_is_left_out_and_counted(run: Path) -> None:
    """One launch resumed; one ended early."""
    trials, (epochs, _) = read.trials(run), read.epochs(run)
    epochs = epochs[~((epochs["launch_id"] == "16x16-0") & (epochs["epoch"] == 0))]
    trials.loc[trials["launch_id"] == "256x1-1", "epochs_trained"] = 3
    (sheet,) = table.sheets(to_target.with_target(trials, epochs, 0.9))
    assert not [head for head in sheet.heads if "target" in head]  # there it would be the median of those that did
    (found,) = to_target.tables(sheet.rows)
    assert {line[0]: line[2] for line in found.lines} == {"16x16": "2 of 2", "256x1": "1 of 2"}
    lost = "were resumed or have not all of their epochs in epochs.csv"
    assert f"16x16: left out, 1 of 3 launches {lost}" in found.notes
    assert "256x1: left out, 1 of 3 launches ended before their last epoch" in found.notes


def test_launches_that_were_to_stop_at_a_lower_target_are_left_out_and_counted(run: Path) -> None:
    """Of 16x16 one jumped over 0.75 and 0.9 in its second epoch; the others stopped in between."""
    trials, (epochs, _) = read.trials(run), read.epochs(run)
    slow = trials["arm"] == "16x16"
    trials.loc[slow, ["stop_accuracy", "epochs_trained"]] = [0.75, 2]
    trials.loc[trials["launch_id"] == "16x16-2", "epochs_trained"] = 3
    stopped = epochs.merge(trials[["launch_id", "epochs_trained"]]).query("epoch < epochs_trained")
    (sheet,) = table.sheets(to_target.with_target(trials, stopped, 0.9))
    (found,) = to_target.tables(sheet.rows)
    (line,) = [line for line in found.lines if line[0].startswith("16x16")]
    assert line[2:] == ["0 of 0", *[""] * (len(line) - 3)]
    (note,) = [note for note in found.notes if note.startswith("16x16")]
    assert "left out, 3 of 3 launches were to stop at 75%" in note


def test_a_launch_that_diverged_never_reached_it_and_other_failures_are_named(run: Path) -> None:
    """Of 16x16 one diverged in its first epoch, of 256x1 the one that had reached 0.9; two more were killed."""
    trials, (epochs, _), (steps, _) = read.trials(run), read.epochs(run), read.steps(run)
    more = trials[trials["arm"] == "16x16"].iloc[:3].assign(launch_id=["d", "k1", "k2"], epochs_trained=0)
    more["status"] = ["diverged", "crashed", "crashed"]
    trials.loc[trials["launch_id"] == "256x1-0", "status"] = "diverged"
    everything = pd.concat([trials, more], ignore_index=True)
    (sheet,) = table.sheets(to_target.with_target(everything, epochs, 0.9))
    (found,) = to_target.tables(sheet.rows)
    lines = {line[0]: line[2:] for line in found.lines}
    assert {name: line[0] for name, line in lines.items()} == {"16x16": "3 of 4", "256x1": "0 of 3"}
    assert lines["16x16"][1] == "3.5 (2 .. never)"  # the median of 2, 3, 4 and never
    assert "16x16: left out, 2 with status crashed" in found.notes
    pytest.importorskip("altair")
    from reports.charts import draw

    charts = {chart.kind: chart for chart in draw(sheet.rows, epochs, steps)}
    assert charts["accuracy_over_time_256"].figures == [
        "16x16: 90% after 35 s (20 .. 40 of those that did), 3 of 4 launches reached it",
        "256x1: 90% not reached by most, 0 of 3 launches reached it",
    ]


def test_the_chart_marks_where_the_target_is_reached(run: Path) -> None:
    pytest.importorskip("altair")
    from reports.charts import draw

    trials, (epochs, _), (steps, _) = read.trials(run), read.epochs(run), read.steps(run)
    (sheet,) = table.sheets(to_target.with_target(trials, epochs, 0.9))
    charts = {chart.kind: chart for chart in draw(sheet.rows, epochs, steps)}
    chart = charts["accuracy_over_time_256"]
    assert chart.figures == [
        "16x16: 90% after 30 s (20 .. 40 of those that did), 3 of 3 launches reached it",
        "256x1: 90% not reached by most, 1 of 3 launches reached it",
    ]
    assert "16x16: 90% after 900 J" in charts["accuracy_over_energy_256"].figures[0]
    spec = chart.drawing.to_dict()
    drawn = [row for rows in spec["datasets"].values() for row in rows]
    curve = [(row["x"], row["y"]) for row in drawn if row.get("launch") == "16x16-1"]
    assert curve == [(10, 60), (20, 92), (30, 89), (40, 95)]
    (mark,) = [row for row in drawn if "tip" in row]
    assert (mark["x"], mark["y"], mark["low"], mark["high"]) == (30, 90, 20, 40)


def test_a_pass_that_computed_features_before_is_time_of_its_curve_and_leaves_no_curve_of_energy(run: Path) -> None:
    pytest.importorskip("altair")
    from reports.charts import draw

    trials, (epochs, _), (steps, _) = read.trials(run), read.epochs(run), read.steps(run)
    epochs.loc[(epochs["launch_id"] == "16x16-1") & (epochs["epoch"] == 0), "feature_pass_s"] = 100.0
    (sheet,) = table.sheets(to_target.with_target(trials, epochs, 0.9))
    charts = {chart.kind: chart.drawing.to_dict()["datasets"] for chart in draw(sheet.rows, epochs, steps)}
    drawn = {
        quantity: [
            row["x"]
            for rows in charts[f"accuracy_over_{quantity}_256"].values()
            for row in rows
            if row.get("launch") == "16x16-1"
        ]
        for quantity in ("time", "energy")
    }
    assert drawn == {"time": [110, 120, 130, 140], "energy": []}
