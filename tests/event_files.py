"""TensorBoard event files, as TensorBoard reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def read_back(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) of each scalar in the only event file of a folder."""
    accumulator: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"]}
    return scalars | {
        tag: [(e.step, float(*e.tensor_proto.float_val)) for e in events.Tensors(tag)] for tag in tags["tensors"]
    }
