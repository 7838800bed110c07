"""Judges a trial against the figures that its source published: reproduced, differs, or not comparable, and why."""

from __future__ import annotations

import decimal
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reports.typed import UNREADABLE

WIDTH = 1.96  # standard errors of a normal distribution that hold 95% of it
RULE = (
    "Reproduced: in 95% of cases, two models of equal accuracy that are evaluated on as many images differ by no more. "
    "Half a unit of the published figure's last digit is added. Of several launches the median is judged. How far "
    "another seed moves the result is not allowed for. Times are another machine's and are not judged."
)
ORDER = ("differs", "not comparable", "reproduced", "")


@dataclass(frozen=True)
class Reproduction:
    """One published figure: its name, the source's value, ours, and the verdict.

    The verdict is reproduced, differs, or not comparable; then `why` gives the reason. Accuracies are fractions, times
    are in seconds. `here` is None if nothing was measured. `allowed` is the largest difference that still counts as
    reproduced; None if nothing is judged.
    """

    figure: str
    published: float
    here: float | None
    verdict: str
    why: str = ""
    allowed: float | None = None


def reproductions(row: Mapping[str, Any], eval_images: int | None) -> list[Reproduction]:
    """All published figures of a row of trials.csv; its evaluation accuracy is over `eval_images` images."""
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
    """Why no figure of the row is comparable with the published ones; "": they are."""
    if row.get(UNREADABLE):
        return f"not readable: {row[UNREADABLE]}"
    if row["status"] != "ok":
        return f"the trial ended as {row['status']}"
    return f"here {row['published_differs']}" if row["published_differs"] else ""


def accuracy(figure: str, theirs: float, ours: float | None, images: int | None, why: str) -> Reproduction:
    """Judge an accuracy over so many images; `why`, if given, is a reason that it is not comparable."""
    if not why and (ours is None or not images or not math.isfinite(ours)):
        why = "the accuracy or its number of images is not known"
    if not why and not 0 <= theirs <= 1:
        why = "the published accuracy is no share"
    if why or ours is None or not images:
        return Reproduction(figure, theirs, ours, "not comparable", why)
    # The variance of a share p of n images is p (1 - p) / n; that of a difference of two shares is twice as much.
    allowed = WIDTH * math.sqrt(2 * theirs * (1 - theirs) / images) + rounding(theirs)
    return Reproduction(figure, theirs, ours, "reproduced" if abs(ours - theirs) <= allowed else "differs", "", allowed)


def rounding(figure: float) -> float:
    """Half a unit of the last digit that a source gave, in whole percents or finer: 91% may be 90.5%."""
    exponent = decimal.Decimal(str(figure)).normalize().as_tuple().exponent
    return 0.5 * 10.0 ** min(int(exponent), -2)


def worst(verdicts: list[Reproduction]) -> str:
    """The verdict on a trial with these figures: that of its worst accuracy; times are not judged."""
    judged = [each.verdict for each in verdicts if each.figure != "epoch time"]
    return min(judged, key=ORDER.index, default="")
