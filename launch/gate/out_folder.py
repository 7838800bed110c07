"""The folder of a gate's launches: the one that was given, or the next that is free."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

from bench.errors import UsageError
from bench.terminal import say
from launch.gate.request import GateRequest


def with_free_folder(request: GateRequest) -> GateRequest:
    """The request with a folder that holds nothing. Raises UsageError if the one that was given does."""
    if is_free(request.out):
        return request
    if request.out_given:
        raise UsageError(f"{request.out} is there already; choose another --out, or remove it")
    names = (request.out.with_name(f"{request.out.name}-{number}") for number in itertools.count(2))
    out = next(filter(is_free, names))
    say(f"{request.out} is there already: this gate goes to {out}")
    return dataclasses.replace(request, out=out)


def is_free(path: Path) -> bool:
    """Whether there is nothing, or an empty folder."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))
