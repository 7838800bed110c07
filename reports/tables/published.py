"""A trial beside the figures that its source published: reproduced, differs, or not comparable, and why."""

from __future__ import annotations

import decimal
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WIDTH = 1.96  # standard errors, 95%
RULE = (
    "Reproduced: the accuracy lies as near to the published one as 95% of two draws from one truth do, over as many "
    "images, plus half a unit of the published figure's last digit. Of several launches the median is judged. That "
    "another seed moves the result is not in it. Times are another machine's and are not judged."
)
ORDER = ("differs", "not comparable", "reproduced", "")


@dataclass(frozen=True)
class Reproduction:
    """One published figure: what it is, what the source has, what was measured here, and what is said of the two.

    `said` is reproduced, differs, or not comparable, and then `why` says why. Accuracies are fractions, times seconds;
    `here` is None where nothing was measured, `allowed`, the largest difference that is no departure, where nothing
    is judged.
    """

    figure: str
    published: float
    here: float | None
    said: str
    why: str = ""
    allowed: float | None = None


def compare_runs(row: Mapping[str, Any], eval_images: int | None) -> list[Reproduction]:
    """All published figures of a row of trials.csv, whose evaluation accuracy is of so many images."""
    found = []
    parts = (
        ("train", row["train_images"]),
        ("eval", eval_images),
        ("validation", row["validation_images"]),
        ("evaluate_on", row["evaluate_on_images"]),
    )
    for part, images in parts:
        if (theirs := row[f"published_{part}_accuracy"]) is not None:
            found.append(
                accuracy(f"{part.replace('_', ' ')} accuracy", theirs, row[f"{part}_accuracy"], images, unlike(row))
            )
    if (theirs := row["published_epoch_time_s"]) is not None:
        why = unlike(row) or "a time of another machine"
        found.append(Reproduction("epoch time", theirs, row["epoch_time_s"], "not comparable", why))
    return found


def unlike(row: Mapping[str, Any]) -> str:
    """Why nothing of the row can be held against what was published; "": it can."""
    if row["status"] != "ok":
        return f"the trial ended as {row['status']}"
    return f"here {row['published_differs']}" if row["published_differs"] else ""


def accuracy(figure: str, theirs: float, ours: float | None, images: int | None, why: str) -> Reproduction:
    """What is said of an accuracy over so many images, unless there is a reason why nothing can be."""
    if not why and (ours is None or not images or not math.isfinite(ours)):
        why = "the accuracy, or of how many images it is, is not known"
    if not why and not 0 <= theirs <= 1:
        why = "what is published is no share"
    if why or ours is None or not images:
        return Reproduction(figure, theirs, ours, "not comparable", why)
    allowed = WIDTH * math.sqrt(2 * theirs * (1 - theirs) / images) + rounding(theirs)
    return Reproduction(figure, theirs, ours, "reproduced" if abs(ours - theirs) <= allowed else "differs", "", allowed)


def rounding(figure: float) -> float:
    """Half a unit of the last digit that a source gave, of whole percents at most: 91% may be 90.5%."""
    exponent = decimal.Decimal(str(figure)).normalize().as_tuple().exponent
    return 0.5 * 10.0 ** min(int(exponent), -2)


def worst(verdicts: list[Reproduction]) -> str:
    """What is said of a trial with these figures, of which its times say nothing."""
    said = [each.said for each in verdicts if each.figure != "epoch time"]
    return min(said, key=ORDER.index, default="")
