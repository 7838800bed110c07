"""Predicted footprints, kept in the user's cache folder, so that a model is traced once. Imports no torch.

A key is a hash of all that a prediction depends on: the trial's settings, the device, this code, the installed versions
and the variables that change memory. The memory limit is part of it with features that are computed once, since where
they are kept depends on it; of other trials a file says under which limits it holds. A file that is damaged is as none,
and so is a folder that cannot be written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import UsageError
from bench.machine import environment
from bench.memory.footprint import Footprint
from bench.record.csvfile import write_whole
from bench.trial import Trial
from launch.memory.devices import Budget

CODE = ("bench", "models", "launch/memory")  # the folders whose code predicts
MOST = 500  # footprints that are kept, of some 100 KB each; whichever are too many go, and cost a trace


class Prediction(NamedTuple):
    """What a trial takes, and its training images. `limits`: the memory limits under which it takes that.

    From the first one up to below the second; None: all from the first one.
    """

    footprint: Footprint
    images: int
    limits: tuple[int, int | None]

    def holds(self, trial: Trial) -> bool:
        """Whether it holds under this trial's limit."""
        limit = math.inf if trial.memory_limit_bytes is None else trial.memory_limit_bytes
        least, above = self.limits
        return limit >= least and (above is None or limit < above)


def folder() -> Path:
    """Where the footprints are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home, "resbench", "footprints")


def is_kept(trial: Trial, budget: Budget) -> bool:
    """Whether the prediction is the same at another time.

    That of a CPU's pipeline "auto" and of stored features depends on free memory, and that of a user's own file on all
    that the file imports.
    """
    if trial.experiment_file:
        return False
    at_hand = trial.features == "each_epoch" and (trial.pipeline != "auto" or trial.data == "synthetic")
    return budget.backend == "cuda" or at_hand


def path_for(trial: Trial, budget: Budget) -> Path:
    """The file of this prediction."""
    limit = trial.memory_limit_bytes if trial.features == "once" else None
    settings = {**trial.settings(), "experiment": "", "memory_limit_bytes": limit}
    device = [budget.backend, budget.capability]
    text = json.dumps([settings, device, _code(), _versions(), environment.of_speed()], sort_keys=True)
    return folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def read(path: Path) -> Prediction | None:
    """The prediction of a file; None: there is none, or it is damaged."""
    try:
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
        if digest != _digest(text):
            return None
        found = json.loads(text)
        fields: dict[str, Any] = found["footprint"]
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        least, above = found["limits"]
        return Prediction(Footprint(**fields), found["images"], (least, above))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, prediction: Prediction) -> None:
    """Keep a prediction, if the folder can be written."""
    fields = {field.name: getattr(prediction.footprint, field.name) for field in dataclasses.fields(Footprint)}
    text = json.dumps({"footprint": fields, "images": prediction.images, "limits": prediction.limits})
    with contextlib.suppress(OSError, UsageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{_digest(text)}\n{text}")
        others = [kept for kept in path.parent.glob("*.json") if kept != path]
        for old in others[MOST - 1 :]:
            old.unlink()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def _code() -> str:
    found = hashlib.sha256()
    for path in sorted(path for name in CODE for path in (environment.CHECKOUT / name).rglob("*.py")):
        found.update(str(path.relative_to(environment.CHECKOUT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


@functools.cache
def _versions() -> dict[str, str | None]:
    versions = {name: environment.version(name) for name in environment.PACKAGES}
    return {**versions, "python": platform.python_version(), "machine": platform.machine()}
