"""What a target took, from epochs written by hand with a known crossing."""

from typing import Any

import pytest

from bench.record import to_target

# 0.9 is reached in the third epoch, missed again in the fourth, and passed in the fifth.
ACCURACIES = (0.5, 0.8, 0.9, 0.7, 0.95)
EPOCHS = [
    {"epoch": n, "eval_accuracy": share, "epoch_time_s": 10.0 + n, "eval_time_s": 0.5, "energy_j": 100.0, "images": 64}
    for n, share in enumerate(ACCURACIES)
]
TRAINED = {"epochs": 5, "epochs_trained": 5}


def test_the_sums_end_with_the_first_epoch_that_reaches_the_target() -> None:
    assert to_target.cells(EPOCHS, 0.9) == {
        "epochs_to_target": 3,
        "time_to_target_s": 10.0 + 11.0 + 12.0,
        "time_to_target_with_evaluation_s": 33.0 + 3 * 0.5,
        "energy_to_target_j": 300.0,
        "images_to_target": 3 * 64,
        "best_eval_accuracy": 0.95,
        "epochs_to_best": 5,
    }
    assert to_target.cells(EPOCHS, 0.91)["time_to_target_s"] == 60.0
    assert to_target.cells(EPOCHS, 0.0001)["time_to_target_s"] == 10.0


def test_the_time_to_a_target_has_that_of_features_that_were_computed_before_and_their_energy_is_unknown() -> None:
    found = to_target.cells([{**EPOCHS[0], "feature_pass_s": 7.0}, *EPOCHS[1:]], 0.9)
    assert (found["time_to_target_s"], found["time_to_target_with_evaluation_s"]) == (40.0, 41.5)
    assert (found["energy_to_target_j"], found["images_to_target"]) == (None, 192)


@pytest.mark.parametrize("target", [0.96, None])
def test_a_target_that_no_epoch_reaches_leaves_empty_cells_and_the_best(target: float | None) -> None:
    found = to_target.cells(EPOCHS, target)
    assert (found.pop("best_eval_accuracy"), found.pop("epochs_to_best")) == (0.95, 5)
    assert set(found.values()) == {None}
    best_twice = to_target.cells([*EPOCHS, {**EPOCHS[4], "epoch": 5}], 0.96)
    assert best_twice["epochs_to_best"] == 5


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("energy_j", {"energy_to_target_j"}),
        ("eval_time_s", {"time_to_target_with_evaluation_s"}),
        ("epoch_time_s", {"time_to_target_s", "time_to_target_with_evaluation_s"}),
    ],
)
def test_a_sum_of_which_a_part_was_not_measured_is_unknown(name: str, lost: set[str]) -> None:
    found = to_target.cells([EPOCHS[0], {**EPOCHS[1], name: None}, *EPOCHS[2:]], 0.9)
    assert {name for name, value in found.items() if value is None} == lost


def test_an_epoch_that_was_not_evaluated_reaches_nothing_and_takes_its_time() -> None:
    found = to_target.cells([*EPOCHS[:2], {**EPOCHS[2], "eval_accuracy": None}, *EPOCHS[3:]], 0.9)
    assert (found["epochs_to_target"], found["time_to_target_s"]) == (5, 60.0)


@pytest.mark.parametrize("rows", [EPOCHS[2:], [EPOCHS[0], *EPOCHS[2:]], [*EPOCHS[:3], *EPOCHS], []])
def test_without_all_epochs_from_the_first_on_nothing_is_known(rows: list[dict[str, Any]]) -> None:
    """Resumed; a row lost; two launches' rows as one."""
    assert set(to_target.cells(rows, 0.9).values()) == {None}


def test_nothing_is_known_if_the_last_epochs_have_no_rows() -> None:
    assert set(to_target.cells(EPOCHS[:4], 0.9, trained=5).values()) == {None}
    assert to_target.cells(EPOCHS[:4], 0.9, trained=4) == to_target.cells(EPOCHS[:4], 0.9)


@pytest.mark.parametrize(
    ("target", "epochs", "more", "said"),
    [
        (None, EPOCHS, TRAINED, ""),
        (0.9, EPOCHS, TRAINED, "90% reached after 3 epochs, 33 s of training"),
        (0.5, EPOCHS, TRAINED, "50% reached after 1 epoch, 10 s of training"),
        (0.5, EPOCHS[:1], {"epochs": 5, "epochs_trained": 1}, "50% reached after 1 of 5 epochs, 10 s of training"),
        (0.96, EPOCHS, TRAINED, "96% not reached; best 95% after epoch 5"),
        (0.96, EPOCHS[:3], {"epochs": 5, "epochs_trained": 3}, "best 90% after epoch 3; it ended after 3 of 5 epochs"),
        (0.96, EPOCHS[2:], TRAINED, "whether 96% was reached is not known"),
    ],
)
def test_how_far_it_got_is_said_of_a_typed_row_and_of_text(
    target: float | None, epochs: list[dict[str, Any]], more: dict[str, Any], said: str
) -> None:
    row = {"target_accuracy": target, **more, **to_target.cells(epochs, target)}
    assert said in to_target.in_words(row)
    assert bool(said) == bool(to_target.in_words(row))
    text = {name: "" if value is None else str(value) for name, value in row.items()}
    assert to_target.in_words(text) == to_target.in_words(row)


def test_a_trial_that_ended_before_does_not_say_that_a_higher_target_was_not_reached() -> None:
    row = {**TRAINED, **to_target.cells(EPOCHS[:3], 0.96)}
    assert to_target.is_known(row)
    assert not to_target.is_known({**row, "epochs_trained": 3})
    assert not to_target.is_known({**TRAINED, **to_target.cells(EPOCHS[2:], 0.96)})
    assert to_target.is_known({**to_target.cells(EPOCHS[:3], 0.9), "epochs": 5, "epochs_trained": 3})


@pytest.mark.parametrize("trained", [3, 4, 5])
def test_a_trial_that_was_to_stop_at_a_lower_target_says_nothing_of_a_higher_one(trained: int) -> None:
    """Whether it went past both in one epoch, or stopped in between, or never stopped."""
    row = {"stop_accuracy": 0.85, "epochs": 5, "epochs_trained": trained, "target_accuracy": 0.9}
    row |= to_target.cells(EPOCHS[:trained], 0.9)
    assert to_target.reached(row)
    assert to_target.why_unknown(row).startswith("were to stop at 85%: those that went past 90% in the same epoch")
    assert not to_target.is_known({**row, **to_target.cells(EPOCHS[:2], 0.9)})
    assert to_target.is_known({**row, "stop_accuracy": 0.9})
    assert to_target.is_known({**row, "stop_accuracy": 0.95})
