"""The columns of a trial's settings: one for each field of Trial. Imports no torch."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from bench.column import Column, Role
from bench.fields import texts
from bench.record.cells import FRACTIONS, INTEGERS
from bench.record.csvfile import cell
from bench.trial import Trial

TYPES: dict[str, Literal["str", "int", "float", "bool"]] = {
    "str": "str",
    "int": "int",
    "int | None": "int",
    "float | None": "float",
    "float": "float",
    "bool": "bool",
}
# Of lists, which are text with spaces between their parts.
FORMS = {"tuple[int, ...]": INTEGERS, "tuple[float, ...]": FRACTIONS}

# Of a setting that is not named here, SETTING says the roles.
SETTING: tuple[Role, ...] = ("setting",)
SETTINGS_ROLES: dict[str, tuple[Role, ...]] = {
    "repeat": (),  # the same trial again
    "target_accuracy": ("reading", "stated"),
    "stop_at_target": (),  # the column stop_accuracy has what it makes of the work
    "experiment": ("work",),
    "experiment_file": (),  # wherever it lies, its hash says what it is
    "experiment_hash": ("work", "stated"),
    "data_contents": ("work", "stated"),
    **dict.fromkeys(("model", "weights", "data", "classes"), ("work", "stated")),
    **dict.fromkeys(("image_size", "limit_train", "epochs"), ("work", "stated")),
    **dict.fromkeys(("micro_batch", "bucket_mib", "gradient_compression"), ("group",)),
    "processes": ("group", "stated"),
    **dict.fromkeys(("lr", "precision", "tf32", "cudnn_benchmark", "memory_format"), (*SETTING, "stated")),
    **dict.fromkeys(("compile", "checkpoint_activations", "seed"), (*SETTING, "stated")),
}


def settings_columns() -> list[Column]:
    """A column for each field of Trial. Tuples are written with spaces between their parts."""
    said = texts(Trial)
    return [
        Column(
            f.name,
            TYPES.get(str(f.type), "str"),
            "bytes" if f.name.endswith("_bytes") else "MiB" if f.name.endswith("_mib") else "",
            "",
            said.get(f.name, ""),
            SETTINGS_ROLES.get(f.name, SETTING),
            form=FORMS.get(str(f.type), ""),
        )
        for f in dataclasses.fields(Trial)
    ]


def default_settings() -> dict[str, Any]:
    """Each setting's default, as `reports` reads it from a cell; None if the cell would be empty."""
    kinds = {column.name: column.type for column in settings_columns()}
    found = {f.name: f.default for f in dataclasses.fields(Trial) if f.default is not dataclasses.MISSING}
    return {name: (cell(value) or None) if kinds[name] == "str" else value for name, value in found.items()}
