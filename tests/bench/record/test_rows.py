"""A trial's first row: why a published figure is no measure of it."""

import dataclasses
from typing import Any

import pytest

from bench.experiment import Experiment, Published
from bench.record.rows import first_row
from bench.trial import Trial

EXPERIMENT = Experiment(
    "?",
    Trial(),
    {"like": {}, "unlike": {}, "silent": {}},
    {"like": Published(0.9, where="W"), "unlike": Published(0.9, where="W", unlike="frogs are left out")},
)


def row(arm: str, **changes: Any) -> dict[str, Any]:
    return first_row(dataclasses.replace(EXPERIMENT.trial("e", arm), **changes), EXPERIMENT, "x")


def differs(arm: str, **changes: Any) -> str | None:
    return row(arm, **changes)["published_differs"]


def test_what_is_unlike_by_nature_stands_behind_the_settings_that_differ() -> None:
    assert differs("like") == ""
    assert differs("like", epochs=7) == "epochs=7"
    assert differs("unlike") == "frogs are left out"
    assert differs("unlike", epochs=7) == "epochs=7, frogs are left out"
    assert differs("silent") is None


def test_a_slash_in_a_model_s_name_stays_and_of_a_file_of_weights_its_name_is_told() -> None:
    assert differs("like", model="timm/resnet50d", weights="runs/a/mine.pt") == "model=timm/resnet50d, weights=mine.pt"


def test_the_version_of_timm_stands_in_the_rows_of_its_models_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of another model says nothing of a timm that happens to be installed."""
    monkeypatch.setattr("bench.machine.environment.version", lambda package: f"{package} 1")
    assert row("like")["timm"] is None
    assert row("like", model="regnet_y_400mf")["timm"] is None
    assert row("like", model="timm/resnet50d")["timm"] == "timm 1"
