"""What a model is evaluated on after an epoch: the evaluation set, what was set aside, and another data set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from bench.data.pipeline import Batch, InputPipeline, Passes
from bench.data.split import Split
from bench.record.columns import columns
from bench.record.progress import beating
from bench.training.group import Group
from bench.training.loop import Evaluation, evaluate
from bench.trial import Trial

PREFIX = {"evaluation": "eval"}


def after_epoch(
    trial: Trial, module: nn.Module, feed: InputPipeline, group: Group, images: int, last: bool
) -> dict[str, Evaluation]:
    """Each part of the data -> how the model does on it, the group's ranks together. `images`: of the evaluation set.

    Another data set is looked at after the last epoch alone.
    """

    def on(images: int, split: Split | None) -> Evaluation:
        def batches(passes: Passes) -> Iterator[Batch]:
            return beating(feed.evaluate(passes, split))

        ranks = (group.rank, trial.processes)
        return evaluate(module, batches, images, trial.evaluation_batch(), *ranks, group.add_up, feed.data.classes)

    found = {"evaluation": on(images, None)}
    most = math.inf if trial.limit_windows is None else trial.limit_windows * trial.micro_batch * trial.processes
    for part, split in (("validation", feed.data.validation), ("evaluate_on", feed.data.other if last else None)):
        if split is not None:
            found[part] = on(int(min(len(split), most)), split)
    return found


def cells(found: dict[str, Evaluation], file: str) -> dict[str, Any]:
    """As those columns that the file has: trials or epochs."""
    known = {column.name for column in columns(file)}
    every = {
        f"{PREFIX.get(part, part)}_{name}": value
        for part, each in found.items()
        for name, value in (("loss", each.loss), ("accuracy", each.accuracy()), ("images", each.images()))
    }
    return {name: value for name, value in every.items() if name in known}


def per_class(found: dict[str, Evaluation], trial: Trial, names: Sequence[str]) -> list[dict[str, Any]]:
    """As rows of per_class.csv."""
    rows = []
    for part, each in found.items():
        for label, counts in enumerate(each.confusion):
            images = sum(counts)
            rows.append(
                {
                    "part": part,
                    "data": trial.evaluate_on if part == "evaluate_on" else trial.data,
                    "label": label,
                    "class_name": names[label] if names else None,
                    "images": images,
                    "accuracy": counts[label] / images if images else None,
                    "predicted": counts,
                }
            )
    return rows
