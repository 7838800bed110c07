"""A trial beside the figures that its source published: reproduced, differs, or not comparable, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WIDTH = 1.96  # standard errors, 95%
ROUNDING = 0.0005  # published to a tenth of a percent
RULE = (
    "reproduced: each accuracy lies as near to the published one as 95% of two draws from one truth do, over as many "
    "images, plus the published figure's rounding; times are another machine's and are not judged"
)


@dataclass(frozen=True)
class Verdict:
    """reproduced, differs, not comparable, or "" where the source has no such figure; and why."""

    said: str
    why: str = ""


def judge(row: Mapping[str, Any], eval_images: int | None) -> Verdict:
    """Of a row of trials.csv, whose accuracy is of so many evaluation images."""
    figures = [
        (name, row[f"published_{name}_accuracy"], row[f"{name}_accuracy"], images)
        for name, images in (("train", row["train_images"]), ("eval", eval_images))
    ]
    figures = [figure for figure in figures if figure[1] is not None]
    if not figures:
        return Verdict("")
    if row["status"] != "ok":
        return Verdict("not comparable", f"the trial ended as {row['status']}")
    if row["published_differs"]:
        return Verdict("not comparable", f"here {row['published_differs']}")
    if any(ours is None or not images for _, _, ours, images in figures):
        return Verdict("not comparable", "the accuracy, or of how many images it is, is not known")
    off = [text for name, theirs, ours, images in figures if (text := departure(name, theirs, ours, int(images or 0)))]
    return Verdict("differs", "; ".join(off)) if off else Verdict("reproduced")


def departure(name: str, theirs: float, ours: float, images: int) -> str:
    """By how much an accuracy is farther off than chance takes it; "" where it is not."""
    allowed = WIDTH * math.sqrt(2 * theirs * (1 - theirs) / images) + ROUNDING
    if abs(ours - theirs) <= allowed:
        return ""
    return f"{name} accuracy {100 * (ours - theirs):+.1f} points, more than {100 * allowed:.1f}"
