"""What is not finite after an epoch: an accuracy of such a model is a number of nothing, since argmax of nan is 0."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from torch import Tensor

from bench.training.loop import Evaluation, Training
from models.weights import first_not_finite

LOSSES = {"evaluation": "evaluation loss", "validation": "validation loss", "evaluate_on": "loss on --evaluate-on"}
NONE: Mapping[str, Evaluation] = MappingProxyType({})


def what_is_not(training: Training, parts: Mapping[str, Evaluation] = NONE) -> str | None:
    """The first evaluation, weight, statistic or momentum that is not finite, as a clause; None: all are.

    `parts`: see `bench.training.evaluation.after_epoch`. The same on each rank: ranks have equal weights, and have
    shared their statistics and sums.
    """
    tensor = first_not_finite(tensors(training))
    for part, result in parts.items():
        if not math.isfinite(result.loss):
            why = f", and {tensor}" if tensor else ""
            return f"the {LOSSES[part]} is {result.loss}{why}"
    return tensor


def tensors(training: Training) -> Iterator[tuple[str, Tensor]]:
    """What a checkpoint holds: the model's parameters and buffers, and the optimizer's state."""
    yield from training.module.state_dict().items()
    names: dict[object, str] = {parameter: name for name, parameter in training.module.named_parameters()}
    for parameter, state in training.optimizer.state.items():
        for kind, value in state.items():
            if isinstance(value, Tensor):
                yield f"{kind} of {names.get(parameter, 'a parameter')}", value
