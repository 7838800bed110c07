"""What a model is evaluated on after an epoch: the evaluation set, the validation images, and another data set.

An evaluation counts only if all is finite. Of a model with nan an accuracy is a number of nothing: argmax of nan is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from bench.data.dataset import Split
from bench.data.pipeline import Batch, InputPipeline, Passes
from bench.record.columns import columns
from bench.record.progress import beating
from bench.training.group import Group
from bench.training.loop import Evaluation, Training, evaluate
from bench.trial import Trial
from models.weights import first_not_finite

PREFIX = {"evaluation": "eval"}
LOSSES = {"evaluation": "evaluation loss", "validation": "validation loss", "evaluate_on": "loss on --evaluate-on"}
NONE: Mapping[str, Evaluation] = MappingProxyType({})


def after_epoch(
    trial: Trial, module: nn.Module, pipeline: InputPipeline, group: Group, epoch: int
) -> dict[str, Evaluation]:
    """Part of the data -> the model's evaluation on it, over all ranks.

    The parts: "evaluation"; "validation" if images are set aside; "evaluate_on", another data set, after the last epoch
    only: that with which training ends.
    """
    data = pipeline.data

    def evaluated(images: int, split: Split | None) -> Evaluation:
        def batches(passes: Passes) -> Iterator[Batch]:
            return beating(pipeline.evaluate(passes, split))

        images = limited(trial, images)
        ranks = (group.rank, trial.processes)
        return evaluate(module, batches, images, trial.evaluation_batch(), *ranks, group.add_up, data.classes)

    parts = {"evaluation": evaluated(len(data.evaluation), None)}
    last_epoch = trial.is_last(epoch, parts["evaluation"].accuracy())
    for name, split in (("validation", data.validation), ("evaluate_on", data.other if last_epoch else None)):
        if split is not None:
            parts[name] = evaluated(len(split), split)
    return parts


def limited(trial: Trial, images: int) -> int:
    """How many of these images are evaluated on.

    --limit-windows also limits evaluation, to as many micro-batches as training has optimizer steps.
    """
    limit = math.inf if trial.limit_windows is None else trial.limit_windows * trial.micro_batch * trial.processes
    return int(min(images, limit))


def cells(parts: dict[str, Evaluation], file: str) -> dict[str, Any]:
    """The parts as columns of this file, "trials" or "epochs"."""
    names = {column.name for column in columns(file)}
    values = {
        f"{PREFIX.get(part, part)}_{name}": value
        for part, result in parts.items()
        for name, value in measures(result).items()
    }
    return {name: value for name, value in values.items() if name in names}


def measures(result: Evaluation) -> dict[str, Any]:
    """What one evaluation found, and the time that it took."""
    return {
        "loss": result.loss,
        "accuracy": result.accuracy(),
        "images": result.images(),
        "time_s": result.time_s,
    }


def per_class(parts: dict[str, Evaluation], trial: Trial, names: Sequence[str]) -> list[dict[str, Any]]:
    """The parts as rows of per_class.csv. `names`: of the classes; empty: they have none."""
    return [
        {
            "part": part,
            "data": trial.evaluate_on if part == "evaluate_on" else trial.data,
            "label": label,
            "class_name": names[label] if names else None,
            "images": sum(counts),
            "accuracy": counts[label] / sum(counts) if sum(counts) else None,
            "predicted": counts,
        }
        for part, result in parts.items()
        for label, counts in enumerate(result.confusion)
    ]


def not_finite(training: Training, parts: Mapping[str, Evaluation] = NONE) -> str | None:
    """The first evaluation, weight, statistic or momentum that is not finite, as a clause; None: all are.

    `parts`: see `after_epoch`. The same on each rank: ranks have equal weights, and have
    shared their statistics and sums.
    """
    tensor = first_not_finite(_tensors(training))
    for part, result in parts.items():
        if not math.isfinite(result.loss):
            why = f", and {tensor}" if tensor else ""
            return f"the {LOSSES[part]} is {result.loss}{why}"
    return tensor


def _tensors(training: Training) -> Iterator[tuple[str, Tensor]]:
    """What a checkpoint holds: the model's parameters and buffers, and the optimizer's state."""
    yield from training.module.state_dict().items()
    names: dict[object, str] = {parameter: name for name, parameter in training.module.named_parameters()}
    for parameter, state in training.optimizer.state.items():
        for kind, value in state.items():
            if isinstance(value, Tensor):
                yield f"{kind} of {names.get(parameter, 'a parameter')}", value
