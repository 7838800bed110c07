"""Accuracies over seeds, with planted truths: a loss is found, none is none, and no more alarms are false than said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_rows import MEASURED
from test_compare import line, told

from reports.cli import main
from reports.verdicts import over_seeds, significance
from reports.verdicts.significance import Difference

OVER = ("--over", "seed")
IMAGES = 10_000


def seeds(*accuracies: float | None, **more: Any) -> list[dict[str, Any]]:
    """A launch for each seed, from 0 on."""
    return [{"seed": seed, "eval_accuracy": value, **more} for seed, value in enumerate(accuracies)]


def drawn(draw: np.random.Generator, count: int, loss: float, spread: float, images: int = IMAGES) -> list[list[float]]:
    """Accuracies of base and head, shares of so many images: seeds differ by 1 point, their differences by `spread`."""
    base = 90 + draw.normal(0, 1, count)
    head = base - loss + draw.normal(0, spread, count)
    return [[float(hits) / images for hits in np.round(side / 100 * images)] for side in (base, head)]


def test_a_loss_of_two_points_is_found_in_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neighbouring seeds differ by more than that, which the pairs take out."""
    base, head = drawn(np.random.default_rng(0), 8, 2.0, 0.3)
    code, lines = told(tmp_path, capsys, seeds(*base), seeds(*head), *OVER)
    assert code == 1
    found = line(lines, "eval_accuracy  ")
    assert "8 seeds" in found
    assert found.endswith("regressed")
    known = 100 * (np.mean(head) - np.mean(base))
    assert f"{known:+.2f} points" in found
    assert "margin of 0.5 points" in lines[-1]


def test_other_metrics_do_not_make_a_loss_harder_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its p-value is below half of the level, but above a sixth of it: there are six lines, five of them open."""
    losses = [0.024, 0.006, 0.018, 0.009, 0.021, 0.012, 0.015, 0.005]
    base, head = [0.9] * len(losses), [0.9 - loss for loss in losses]
    change = over_seeds.difference(base, head)
    assert change is not None
    answer, chance = change.answer(0.5, more_is_worse=False)
    assert answer == "regressed"
    assert 0.05 / 6 < chance < 0.05 / 2
    others = "step_time_p50_s", "images_per_s", "peak_allocated_bytes", "peak_reserved_bytes", "peak_rss_bytes"
    before, after = (
        [{**row, **{name: MEASURED[name] * (1 + at % 3) for name in others}} for at, row in enumerate(seeds(*side))]
        for side in (base, head)
    )
    code, lines = told(tmp_path, capsys, before, after, *OVER)
    assert (code, lines[0]) == (1, "1 regressed, 5 inconclusive")
    assert line(lines, "eval_accuracy  ").endswith("regressed")


def test_equal_code_is_equivalent_with_eight_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, head = drawn(np.random.default_rng(1), 8, 0.0, 0.3)
    assert base != head
    code, lines = told(tmp_path, capsys, seeds(*base), seeds(*head), *OVER)
    assert (code, lines[0]) == (0, "6 equivalent")


def test_what_trained_alike_is_equivalent_however_few_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = seeds(0.91, 0.93, eval_loss=0.4)
    code, lines = told(tmp_path, capsys, rows, rows, *OVER)
    assert code == 0
    assert "+0.00 points" in line(lines, "eval_accuracy  ")
    assert line(lines, "eval_accuracy  ").endswith("equivalent")


@pytest.mark.parametrize(
    ("accuracies", "verdict"), [([0.91, 0.93], "inconclusive"), ([0.9] * 2, "inconclusive"), ([1.0] * 8, "equivalent")]
)
def test_a_few_seeds_that_agree_by_chance_say_nothing(
    accuracies: list[float], verdict: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both sides got as many images right, by other weights, as the loss says."""
    base, head = (seeds(*accuracies, eval_loss=loss) for loss in (0.4, 0.5))
    code, lines = told(tmp_path, capsys, base, head, *OVER)
    assert code == 0
    assert f"seeds  {verdict}" in line(lines, "eval_accuracy  ")


@pytest.mark.parametrize(("margin", "code", "verdict"), [("0.5", 1, "regressed"), ("3", 0, "equivalent")])
def test_the_margin_is_in_points(
    margin: str, code: int, verdict: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = seeds(0.9, 0.91, 0.92, 0.93), seeds(0.88, 0.891, 0.899, 0.91)
    ended, lines = told(tmp_path, capsys, *rows, *OVER, "--accuracy-margin", margin)
    assert ended == code
    assert line(lines, "eval_accuracy  ").endswith(verdict)


def test_a_gain_is_an_improvement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, seeds(0.88, 0.89, 0.9), seeds(0.9, 0.911, 0.919), *OVER)
    assert code == 0
    assert line(lines, "eval_accuracy  ").endswith("improved")


def test_repeats_of_one_seed_are_one_observation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three launches of each seed: six rows of a side, and two seeds."""
    base = [row | {"repeat": repeat} for repeat in range(3) for row in seeds(0.9, 0.92)]
    head = [row | {"eval_accuracy": row["eval_accuracy"] - 0.02 + 0.001 * (row["repeat"] - 1)} for row in base]
    _, lines = told(tmp_path, capsys, base, head, *OVER)
    found = line(lines, "eval_accuracy  ")
    assert "2 seeds" in found
    assert "-2.00 points" in found
    assert "6 and 6" in line(lines, "step_time_p50_s")


def test_seeds_of_one_side_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seed 3 of HEAD failed, too, which is a regression of its own."""
    head = seeds(0.9, 0.91, 0.92, None, 0.1)
    head[3] |= {"status": "diverged", "error": "loss nan"}
    code, lines = told(tmp_path, capsys, seeds(0.9, 0.91, 0.92, 0.93), head, *OVER)
    assert code == 1
    found = line(lines, "eval_accuracy  ")
    assert "3 seeds" in found
    assert "+0.00 points" in found
    assert "left out, since BASE alone has them: seeds 3; left out, since HEAD alone has them: seeds 4" in found
    assert "regressed: 1 of 5 launches in HEAD failed, 0 of 4 in BASE; diverged: loss nan" in "".join(lines)


@pytest.mark.parametrize(
    ("base", "head", "code", "said"),
    [
        (seeds(0.9), seeds(0.8), 0, "inconclusive: only seed 0 is in both; launch both sides with --seed 0,1,2"),
        (seeds(0.9, 0.9), [{"seed": 7}], 3, "not comparable: no seed is in both: BASE has 0,1, HEAD 7; launch both"),
        (seeds(0.9, 0.9), seeds(0.9, None), 0, "inconclusive: it is missing in 1 of 4 launches"),
        (seeds(0.9, 0.9), seeds(None, None), 3, "not comparable: it was not measured in HEAD"),
        (
            seeds(0.9, 0.9),
            [{"seed": None, "trial_key": None}],
            3,
            "not comparable: some launches do not say their seed",
        ),
    ],
)
def test_what_tells_nothing_says_why(
    base: list[Any], head: list[Any], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, lines = told(tmp_path, capsys, base, head, *OVER)
    assert ended == code
    assert said in line(lines, "eval_accuracy  ")


def test_without_an_accuracy_there_is_no_line_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, seeds(None, None), seeds(None, None), *OVER)
    assert (code, lines[0]) == (0, "5 equivalent")


def test_a_launch_that_was_not_alone_on_its_device_is_no_less_accurate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines = told(tmp_path, capsys, seeds(0.9, 0.91), seeds(0.9, 0.91, other_processes=1), *OVER)
    assert line(lines, "eval_accuracy  ").endswith("2 seeds  equivalent")


def test_the_seed_stays_a_setting_unless_told_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, seeds(0.9, 0.8), seeds(0.9, 0.81))
    assert (code, lines[0]) == (0, "12 inconclusive")
    assert "one seed's result, launched again and again; give several, and --over seed" in line(lines, "=1", "accuracy")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--accuracy-margin", "0.5"], "--accuracy-margin 0.5 is for accuracies over seeds; give --over seed"),
        ([*OVER, "--accuracy-margin", "0.5%"], "'0.5%' is no number of percentage points between 0 and 100"),
        ([*OVER, "--accuracy-margin", "0"], "'0' is no number of percentage points"),
        (["--over", "lr"], "--over is 'lr'; choose from: seed"),
    ],
)
def test_what_cannot_be_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", "a", "b", *words])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert said in printed.err


def test_what_is_open_says_how_many_seeds_would_close_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, head = drawn(np.random.default_rng(2), 3, 0.3, 0.6)
    _, lines = told(tmp_path, capsys, seeds(*base), seeds(*head), *OVER)
    change = over_seeds.difference(base, head)
    assert change is not None
    needed = over_seeds.seeds_needed(change, 0.5, 0.05 / 2)  # half of the level, whatever else was measured
    said = f"inconclusive: {needed} seeds with this spread would show that nothing changed, or a loss of 1 points"
    assert said in line(lines, "eval_accuracy  ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            Difference(-0.48, 0.05, 31),
            "seeds would show that nothing changed, or a loss of 1 points, 4 times in 5; this",
        ),
        (Difference(-0.48, 40.0, 7), "not even 10000 seeds with this spread"),
    ],
)
def test_more_seeds_are_not_promised_to_help_where_they_would_not(change: Difference, said: str) -> None:
    open_one = over_seeds.Comparison("t", "inconclusive", "eval_accuracy", change=change, seeds=range(32))
    assert said in over_seeds.with_seeds_needed(open_one, 0.5, 0.05).why
    assert over_seeds.with_seeds_needed(over_seeds.Comparison("t", "inconclusive"), 0.5, 0.05).why == ""


@pytest.mark.parametrize("spread", [0.3, 0.6])
def test_so_many_seeds_do_what_is_said_of_them(spread: float) -> None:
    """No change is found equivalent, and a loss of twice the margin regressed, in 80% of the cases or more.

    Half as many do not suffice.
    """
    draw = np.random.default_rng(3)
    count = over_seeds.seeds_needed(Difference(0.0, spread / math.sqrt(8), 7), 0.5, 0.05)
    assert count is not None
    for loss, answer in ((0.0, "equivalent"), (1.0, "regressed")):
        hits = sum(answered(draw, count, loss, spread) == answer for _ in range(1000))
        assert hits / 1000 > 0.8 - 3 * math.sqrt(0.8 * 0.2 / 1000)
    fewer = sum(answered(draw, count // 2, 0.0, spread) == "equivalent" for _ in range(1000))
    assert fewer / 1000 < 0.6


def answered(draw: np.random.Generator, count: int, loss: float, spread: float, images: int = IMAGES) -> str:
    """What a single comparison at 5% says of seeds with this loss, in points."""
    base, head = drawn(draw, count, loss, spread, images)
    change = over_seeds.difference(base, head)
    assert change is not None
    answer, chance = change.answer(0.5, more_is_worse=False)
    return answer if chance <= significance.LEVEL else "inconclusive"


@pytest.mark.parametrize("images", [100, IMAGES])
@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("loss", [0.0, 0.5], ids=["no loss", "just the margin"])
def test_families_alarm_as_rarely_as_claimed(loss: float, count: int, images: int) -> None:
    """1000 families of 5 trials. Of those at 5%, that many or more come of 50 + 3 sigma; so too for "equivalent".

    Few images have coarse steps, on which two seeds may agree by chance.
    """
    draw = np.random.default_rng(4)
    false = {"regressed", "equivalent"} if loss else {"regressed", "improved"}
    wrong = 0
    for _ in range(1000):
        answers = []
        for spread in (0.2, 0.3, 0.3, 0.5, 1.0):
            base, head = drawn(draw, count, loss, spread, images)
            change = over_seeds.difference(base, head)
            assert change is not None
            answers.append(change.answer(0.5, more_is_worse=False))
        tested = significance.holm([chance for _, chance in answers], [0.05 / 5] * 5)
        wrong += any(answer in false and chance <= at for (answer, chance), at in zip(answers, tested, strict=True))
    assert wrong <= 50 + 3 * math.sqrt(1000 * 0.05 * 0.95)


@pytest.mark.parametrize("words", [OVER, ()])
def test_where_training_stops_at_a_target_the_accuracy_is_no_result(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two points lower, but only because the last epoch of BASE went further beyond the target."""
    base, head = (seeds(*shares, stop_accuracy=0.9) for shares in ((0.93, 0.925, 0.92), (0.91, 0.905, 0.9)))
    code, lines = told(tmp_path, capsys, base, head, *words)
    assert code == 0
    (said,) = [each for each in lines if "eval_accuracy" in each]
    assert said.startswith("eval_accuracy is not compared of resnet20_accumulation 16x8")
    assert said.endswith(
        ": training stops at the target, which decides it; what counts is the time to the target (reports show)."
    )
