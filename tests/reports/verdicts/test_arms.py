"""Two arms of one run with a planted difference: it is found, said in words, and no more is said than the rows hold."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_rows import plant, shown
from scipy import stats
from test_compare import line

from bench.record.run_folder import RunFolder
from reports.cli import main

SLOWER, LEANER, LATER = 1.25, 0.3125, 1.5  # 16x16 against 256x1
SPREAD = (0.01, -0.01, 0.005, -0.005, 0.008, -0.008, 0.002, -0.002)
ACCURACIES = (0.91, 0.92, 0.915, 0.918, 0.912, 0.922, 0.917, 0.914)
NOISE = (0.0004, -0.0003, 0.0002, -0.0004, 0.0003, -0.0002, 0.0001, -0.0001)


def plan(arm: str, seeds: int = 8, **more: Any) -> list[dict[str, Any]]:
    """A launch for each seed of an arm of the study."""
    micro, _, accumulate = arm.partition("x")
    slow = arm == "16x16"
    rows = []
    for seed, (off, accuracy, noise) in enumerate(zip(SPREAD[:seeds], ACCURACIES, NOISE, strict=False)):
        rows.append(
            {
                "launch_id": f"{arm}-{seed}-{more.get('precision', 'no')}-{more.get('processes', 1)}",
                "arm": arm,
                "seed": seed,
                "micro_batch": int(micro),
                "accumulate": int(accumulate),
                "effective_batch": int(micro) * int(accumulate),
                "epoch_time_s": 40 * (SLOWER if slow else 1) * (1 + off * (-1 if slow else 1)),
                "peak_allocated_bytes": int(2**33 * (LEANER if slow else 1)),
                "eval_accuracy": accuracy + (noise if slow else 0),
                "eval_loss": 0.3 + accuracy / 1000 + (1e-4 if slow else 0),
                "target_accuracy": 0.9,
                "epochs": 20,
                "epochs_trained": 20,
                "best_eval_accuracy": accuracy,
                "epochs_to_best": 18,
                "epochs_to_target": 10 + seed,
                "time_to_target_s": 100 * (10 + seed) * (LATER if slow else 1) * (1 + off * (-1 if slow else 1)),
                **more,
            }
        )
    return rows


def interval(metric: str) -> str:
    """The 95% interval of the ratio, by Welch's test on logarithms as SciPy has it."""
    head, base = (np.log([row[metric] for row in BOTH if row["arm"] == arm]) for arm in ("16x16", "256x1"))
    found = stats.ttest_ind(head, base, equal_var=False).confidence_interval()
    return f"{math.exp(found.low):.3g} .. {math.exp(found.high):.3g}"


def missed(row: dict[str, Any]) -> dict[str, Any]:
    """The same launch, if it had not reached its target."""
    return {**row, "epochs_to_target": None, "time_to_target_s": None}


def told(
    folder: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]], *words: str
) -> tuple[int, list[str]]:
    """(exit code, lines)."""
    plant(folder, *rows)
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(folder), *words])
    printed = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, [each.strip() for each in (printed.out + printed.err).splitlines() if each.strip()]


ARMS = ("--arms", "16x16,256x1")
BOTH = [*plan("16x16"), *plan("256x1")]


def test_planted_ratios_are_found_and_said_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, BOTH, *ARMS, "--json", str(tmp_path / "out.json"))
    assert (code, lines[0]) == (1, "head: 16x16, base: 256x1")
    assert lines[1] == "2 regressed, 1 improved, 4 equivalent"
    time = line(lines, "16x16 against 256x1", "epoch_time_s")
    assert "+25.0" in time
    assert time.endswith("regressed")
    assert line(lines, "peak_allocated_bytes").split()[-1] == "improved"
    accuracy = line(lines, "16x16 against 256x1", "eval_accuracy")
    assert "8 seeds" in accuracy
    assert accuracy.endswith("equivalent")
    (said,) = [each for each in lines if each.startswith("At an effective batch of 256, ")]
    assert f"an epoch of 16x16 takes 1.25 times ({interval('epoch_time_s')}) as long as one of 256x1 and 0.312" in said
    assert "0.312 times (0.312 .. 0.312) the memory; " in said
    assert "accuracy is equivalent within 0.5 points over 8 seeds (" in said
    assert "to 90% it takes 1.5 times (1.4" in said
    assert json.loads((tmp_path / "out.json").read_text())["conclusions"] == [said]


def test_show_and_the_page_of_the_study_have_the_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, *BOTH, *plan("64x1", effective_batch=64))
    said = [each for each in shown(tmp_path, capsys).splitlines() if each.startswith("At an effective batch")]
    assert len(said) == 1  # 64x1 has no partner
    assert f"16x16 takes 1.25 times ({interval('epoch_time_s')}) as long as one of 256x1" in said[0]
    main(["page", str(tmp_path)])
    page = (tmp_path / "report.html").read_text()
    assert f"takes 1.25 times ({interval('epoch_time_s')}) as long as one of 256x1" in page
    assert "To 90% on the evaluation set" in page
    assert 'class="target sortable"' in page


def test_one_launch_of_each_tells_nothing_of_the_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, [*plan("16x16", 1), *plan("256x1", 1)], *ARMS)
    assert code == 0
    (said,) = [each for each in lines if each.startswith("At an effective batch")]
    assert said.count("(one launch of each, which tells nothing of the spread)") == 2  # time and memory
    assert "to 90% it takes 1.47 times (one seed of each, which tells nothing of the spread) the time" in said
    assert "accuracy could not be told: only seed 0 is in both" in said
    assert "equivalent" not in said


@pytest.mark.parametrize(
    ("launches", "factors", "said"),
    [
        (2, (1, 1.2), "takes 1.12 times (two launches cannot tell) as long as one of 256x1 and 0.312"),
        (3, (1, 30, 0.1), " times (3 launches cannot tell) as long as one of 256x1 and 0.312"),
        (3, (1, 1.2, 1), ", which cannot be told from 1) as long as one of 256x1 and 0.312"),
    ],
    ids=["two launches", "an interval of more than a factor of ten", "an interval worth its numbers"],
)
def test_an_interval_that_tells_nothing_is_not_in_the_sentence(
    launches: int,
    factors: tuple[float, ...],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Memory, equal in all launches of an arm, keeps its interval."""
    slow = [{**row, "epoch_time_s": 41 * by} for row, by in zip(plan("16x16", launches), factors, strict=True)]
    _, lines = told(tmp_path, capsys, [*slow, *plan("256x1", launches)], *ARMS)
    (found,) = [each for each in lines if each.startswith("At an effective batch")]
    assert said in found
    assert "0.312 times (0.312 .. 0.312) the memory" in found


def test_too_few_seeds_leave_accuracy_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*plan("16x16", 2), *plan("256x1", 2)]
    rows[0]["eval_accuracy"] += 0.01
    _, lines = told(tmp_path, capsys, rows, *ARMS)
    (said,) = [each for each in lines if each.startswith("At an effective batch")]
    assert "whether accuracy differs by more than 0.5 points could not be told over 2 seeds: +0.50 (" in said


def test_a_loss_of_accuracy_has_its_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = [{**row, "eval_accuracy": row["eval_accuracy"] - 0.02} for row in plan("16x16")]
    _, lines = told(tmp_path, capsys, [*worse, *plan("256x1")], *ARMS)
    (said,) = [each for each in lines if each.startswith("At an effective batch")]
    assert "accuracy is lower by more than 0.5 points over 8 seeds: -2.00 (-2.02 .. -1.98)" in said


def test_launches_that_did_not_reach_the_target_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = plan("16x16")
    _, lines = told(tmp_path, capsys, [*map(missed, slow[:2]), *slow[2:], *plan("256x1")], *ARMS)
    (said,) = [each for each in lines if each.startswith("At an effective batch")]
    counted = "6 of 8 launches of 16x16 reached it, 8 of 8 launches of 256x1 reached it"
    assert counted in line(lines, "time_to_target_s", "inconclusive")
    assert f"the time to 90% is not known: {counted}" in said


def test_an_accuracy_at_which_training_stops_is_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """16x16 went two points further past the target in its last epoch."""
    further = [{**row, "eval_accuracy": row["eval_accuracy"] + 0.02} for row in BOTH[:8]]
    rows = [{**row, "stop_accuracy": 0.9, "epochs_trained": row["epochs_to_target"]} for row in (*further, *BOTH[8:])]
    _, lines = told(tmp_path, capsys, rows, *ARMS)
    assert not [each for each in lines if "eval_accuracy" in each]
    (said,) = [each for each in lines if each.startswith("At an effective batch")]
    assert said.count("accuracy") == 1
    assert "to 90% it takes 1.5 times (" in said
    assert said.endswith("; accuracy is not compared, since training stops at the target.")


def test_launches_that_diverged_did_not_reach_the_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = plan("16x16")
    lost = [{**missed(row), "status": "diverged", "error": "loss is nan", "eval_accuracy": None} for row in slow[:4]]
    _, lines = told(tmp_path, capsys, [*lost, *slow[4:], *plan("256x1")], *ARMS)
    (said,) = [each for each in lines if each.startswith("At an effective batch")]
    counted = "4 of 8 launches of 16x16 reached it, 8 of 8 launches of 256x1 reached it"
    assert counted in line(lines, "time_to_target_s", "inconclusive")
    assert f"the time to 90% is not known: {counted}" in said


def test_a_target_above_the_one_that_launches_were_to_stop_at_is_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All went past 90% in the epoch in which they were to stop at 85%, but two: those stopped in between."""
    rows = [{**row, "stop_accuracy": 0.85, "epochs_trained": 10} for row in BOTH]
    _, lines = told(tmp_path, capsys, [*map(missed, rows[:2]), *rows[2:]], *ARMS)
    why = "16 of 16 launches were to stop at 85%: those that went past 90%"
    assert why in line(lines, "time_to_target_s", "inconclusive")
    assert any(f"the time to 90% is not known: {why}" in each for each in lines)


def test_unequal_effective_batches_are_said_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Arms are per process. What follows from the processes, such as threads, keeps nobody from comparing them."""
    two = plan("16x16", processes=2, effective_batch=512, threads=1, backend="gloo")
    rows = [*two, *plan("16x16", threads=2)]
    code, lines = told(tmp_path, capsys, rows, "--setting", "processes=2,1")
    assert lines[0].startswith("Effective batches differ: 2 processes has 512 images in a step and 1 process 256")
    assert "2 processes against 1 process" in line(lines, "epoch_time_s")
    assert any(each.startswith("At effective batches of 512 against 256, ") for each in lines)
    assert code == 0


def test_another_machine_is_not_comparable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, [*plan("16x16", torch="2.8"), *plan("256x1")], *ARMS)
    assert code == 3
    assert any("could not be compared: torch 2.9.0 against 2.8" in each for each in lines)


def test_an_arm_that_ran_in_several_ways_is_not_comparable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smaller = [{**row, "launch_id": f"{row['launch_id']}-small"} for row in plan("16x16", micro_batch=8)]
    code, lines = told(tmp_path, capsys, [*BOTH, *smaller], *ARMS)
    assert code == 3
    assert any("not comparable: one of them ran with several values of micro_batch" in each for each in lines)


def test_energy_that_some_launches_lack_is_no_missed_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "energy_to_target_j": None if row["seed"] == 3 else 5e4 + row["seed"]} for row in BOTH]
    _, lines = told(tmp_path, capsys, rows, *ARMS)
    assert line(lines, "energy_to_target_j").endswith("inconclusive: it is missing in 2 of 16 launches")


def test_settings_that_both_arms_ran_with_are_compared_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """bf16 of 256x1 alone is left out: it has no partner."""
    rows = [*BOTH, *plan("16x16", precision="bf16"), *plan("256x1", precision="bf16"), *plan("256x1", precision="fp16")]
    _, lines = told(tmp_path, capsys, rows, *ARMS)
    assert len([each for each in lines if "epoch_time_s" in each]) == 2
    assert any(each.startswith("At an effective batch of 256 (bf16), an epoch of 16x16") for each in lines)
    assert any(each.startswith("At an effective batch of 256 (fp32), an epoch of 16x16") for each in lines)


def test_two_values_of_a_setting_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faster = [{**row, "epoch_time_s": row["epoch_time_s"] / 2} for row in plan("256x1", precision="bf16")]
    _, lines = told(tmp_path, capsys, [*faster, *plan("256x1")], "--setting", "precision=bf16,no")
    assert lines[0] == "head: bf16, base: no"
    assert line(lines, "bf16 against fp32", "epoch_time_s").endswith("improved")
    assert any("an epoch of bf16 takes 0.5 times (" in each and ") as long as one of fp32" in each for each in lines)


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        (BOTH, ("--arms", "16x8,256x1"), "no arm '16x8' in {}; it has: 16x16, 256x1"),
        (BOTH, ("--setting", "precision=bf16,no"), "no precision 'bf16' in {}; it has: no"),
        (
            [*plan("16x16"), *plan("256x1", precision="bf16")],
            ARMS,
            "16x16 and 256x1 never ran with like settings in {}: precision no against bf16; run both alike",
        ),
    ],
)
def test_what_the_run_does_not_have_is_one_sentence(
    rows: list[dict[str, Any]], words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = told(tmp_path, capsys, rows, *words)
    assert (code, lines) == (2, [f"error: {said.format(tmp_path)}"])


@pytest.fixture
def afterwards(tmp_path: Path) -> Path:
    """A run without a target. Two epochs each reach 0.8; those of 16x16 take 1.25 times as long."""
    rows = [{**missed(row), "target_accuracy": None, "epochs": 2, "epochs_trained": 2} for row in BOTH]
    plant(tmp_path, *rows)
    for row in rows:
        for epoch, share in enumerate((0.3, 0.8)):
            figures = {"eval_accuracy": share, "epoch_time_s": row["epoch_time_s"], "eval_time_s": 1.0, "images": 100}
            RunFolder(tmp_path).append("epochs", [{"launch_id": row["launch_id"], "epoch": epoch, **figures}])
    return tmp_path


TARGET = (*ARMS, "--target-accuracy", "0.8")


def test_a_target_can_be_asked_for_afterwards(afterwards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = told(afterwards, capsys, [], *TARGET)
    assert "+25.0" in line(lines, "16x16 against 256x1", "time_to_target_s")
    assert any("to 80% it takes 1.25 times (" in each for each in lines)


def test_an_epoch_that_cannot_be_read_is_refused_where_it_counts(
    afterwards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = afterwards / "epochs.csv"
    path.write_text(path.read_text() + "half a row\n")
    said = f"error: {path}: 1 row of epochs.csv cannot be read; python -m reports show {afterwards} has the others"
    assert told(afterwards, capsys, [], *TARGET) == (2, [said])
    assert told(afterwards, capsys, [], *ARMS)[0] == 1  # epochs are not asked for: a slower epoch regressed


def test_launches_without_all_their_epochs_are_left_out(afterwards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last row of each is lost, and 0.3 is reached in the first."""
    path = afterwards / "epochs.csv"
    head, *rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join([head, *rows[::2]]))
    _, lines = told(afterwards, capsys, [], *ARMS, "--target-accuracy", "0.3")
    why = "16 of 16 launches were resumed or have not all of their epochs in epochs.csv"
    assert why in line(lines, "time_to_target_s", "inconclusive")
