"""What an accuracy took: epochs, time, energy and images until an evaluation first reaches it. Imports no torch.

A trial computes it while it trains and `reports` does afterwards, both here and from the same rows of epochs.csv.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.column import Column, digits

UNTIL = "until the end of the first epoch whose evaluation reached target_accuracy"
# None has `shown`: in a row of medians it would be that of the launches that reached the target, and the arm of which
# fewer do would look better. reports/tables/to_target.py counts all of them.
TRIALS = [
    Column(
        "epochs_to_target",
        "int",
        "",
        "",
        f"Epochs {UNTIL}, that epoch included; empty: none did, or it was resumed.",
    ),
    Column(
        "time_to_target_s",
        "float",
        "s",
        "",
        f"Training time {UNTIL}: the sum of epoch_time_s, and feature_pass_s.",
    ),
    Column(
        "time_to_target_with_evaluation_s",
        "float",
        "s",
        "",
        "The same and the time of each evaluation until then (eval_time_s), which MLPerf counts too.",
    ),
    Column(
        "energy_to_target_j",
        "float",
        "J",
        "",
        f"Energy while training {UNTIL}: the sum of energy_j; empty with features once, which took energy before.",
    ),
    Column("images_to_target", "int", "images", "", f"Training images put through the model {UNTIL}."),
    Column("best_eval_accuracy", "float", "1", "", "The best eval_accuracy of an epoch; empty: it was resumed."),
    Column("epochs_to_best", "int", "", "", "Epochs until the first evaluation that found it."),
]
DIVERGED = "diverged"  # the status of a trial that trained as it was to and got nowhere; any other failure says nothing
NAMES = [column.name for column in TRIALS]
# The sums until the target: column -> the columns of epochs.csv that are added up.
SUMS = {
    "time_to_target_s": ("epoch_time_s",),
    "time_to_target_with_evaluation_s": ("epoch_time_s", "eval_time_s"),
    "energy_to_target_j": ("energy_j",),
    "images_to_target": ("images",),
}
# Before a launch's first epoch its features may have been computed, a part of each time. Their energy is not known.
PASS = "feature_pass_s"
# What of a row of epochs.csv is needed.
EPOCH = ("epoch", "eval_accuracy", PASS, *dict.fromkeys(name for names in SUMS.values() for name in names))


def cells(epochs: Sequence[Mapping[str, Any]], target: float | None, trained: int | None = None) -> dict[str, Any]:
    """The columns of TRIALS, from the rows of one launch in epochs.csv, in their order; None: not reached or unknown.

    A launch that went on from a checkpoint has no rows of the epochs before, so that nothing is known of it. Nor is it
    of one with fewer rows than the epochs that it `trained`; None: that number is not known.
    """
    found: dict[str, Any] = dict.fromkeys(NAMES)
    if not epochs or len(epochs) < (trained or 0) or [row["epoch"] for row in epochs] != list(range(len(epochs))):
        return found
    accuracies = {number: row["eval_accuracy"] for number, row in enumerate(epochs, 1)}
    known = {number: accuracy for number, accuracy in accuracies.items() if accuracy is not None}
    if known:
        best = max(known, key=lambda number: known[number])  # of equal ones the first
        found |= {"best_eval_accuracy": known[best], "epochs_to_best": best}
    reached = [number for number, accuracy in known.items() if target is not None and accuracy >= target]
    if reached:
        found["epochs_to_target"] = reached[0]
        found |= {name: total(epochs[: reached[0]], parts) for name, parts in SUMS.items()}
    return found


def total(epochs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Any:
    """The sum of these columns; None if a value is missing."""
    values = [row[name] for name in names for row in epochs]
    before = sum(row.get(PASS) or 0.0 for row in epochs)
    if before and "energy_j" in names:
        return None
    return None if None in values else sum(values) + (before if "epoch_time_s" in names else 0)


def is_known(row: Mapping[str, Any]) -> bool:
    """Whether a row of trials.csv says if its target was reached."""
    return not why_unknown(row)


def why_unknown(row: Mapping[str, Any]) -> str:
    """What its launch did, if a row of trials.csv does not say whether its target was reached; "": it does.

    One that was to stop at a lower target is unknown even if it reached this one: of those launches only the ones that
    jumped over both say so, and they are the quick ones.
    """
    stop, target = number(row, "stop_accuracy"), number(row, "target_accuracy")
    if None not in (stop, target) and stop < target:
        return (
            f"were to stop at {share(stop)}: those that went past {share(target)} in the same epoch are no fair sample"
        )
    if reached(row) or row.get("status") == DIVERGED:
        return ""
    if number(row, "best_eval_accuracy") is None:
        return "were resumed or have not all of their epochs in epochs.csv"
    trained, epochs = number(row, "epochs_trained"), number(row, "epochs")
    return "ended before their last epoch" if None not in (trained, epochs) and trained < epochs else ""


def reached(row: Mapping[str, Any]) -> bool:
    """Whether a row's target was reached; never by a trial that diverged, whatever it had reached before."""
    return number(row, "epochs_to_target") is not None and row.get("status") != DIVERGED


def in_words(row: Mapping[str, Any]) -> str:
    """How far a row of trials.csv, typed or text, got towards its target; "": it has none."""
    if (target := number(row, "target_accuracy")) is None:
        return ""
    epochs, time = number(row, "epochs_to_target"), number(row, "time_to_target_s")
    best, after = number(row, "best_eval_accuracy"), number(row, "epochs_to_best")
    trained, asked = number(row, "epochs_trained"), number(row, "epochs")
    of_all = f" of {asked:g}" if None not in (trained, asked) and trained < asked else ""
    if epochs is not None:
        taken = "" if time is None else f", {digits(time)} s of training"
        count = "epoch" if epochs == 1 and not of_all else "epochs"
        return f"{share(target)} reached after {epochs:g}{of_all} {count}{taken}"
    if best is None or after is None:
        return f"whether {share(target)} was reached is not known: not all of its epochs are in epochs.csv"
    ended = f"; it ended after {trained:g}{of_all} epochs" if of_all else ""
    return f"{share(target)} not reached; best {share(best)} after epoch {after:g}{ended}"


def share(value: float) -> str:
    """A share in percent: 90%, 91.25%."""
    return f"{100 * value:.4g}%"


def number(row: Mapping[str, Any], name: str) -> Any:
    """A cell as a number; None if it is empty."""
    return None if row.get(name) in (None, "") else float(row[name])
